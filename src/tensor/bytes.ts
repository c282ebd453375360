/** A number of bytes as people read it: `0.2 MB`, `3.4 GB`. */
export const byteText = (bytes: number): string =>
  bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;

/** As `byteText`, for files that may be small: `557 B`, `35 kB`. */
export const fileSizeText = (bytes: number): string =>
  bytes < 1e3 ? `${bytes} B` : bytes < 1e5 ? `${Math.round(bytes / 1e3)} kB` : byteText(bytes);
