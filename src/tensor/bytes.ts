/** A number of bytes as people read it: `0.2 MB`, `3.4 GB`. */
export const byteText = (bytes: number): string =>
  bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
