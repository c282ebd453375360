/** What one client, one run and all of them together may take. */
export interface Limits {
  /** Runs that compute side by side; one device takes one. */
  readonly running: number;
  /** Runs that may wait for the device, and how many of those may be one client's. */
  readonly waiting: number;
  readonly waitingPerClient: number;
  /** Bytes of a request's body. */
  readonly body: number;
  /** Seconds that a run may compute; waiting does not count. */
  readonly seconds: number;
  /** Bytes that a run may hold on the device, and by which the process may grow while it computes. */
  readonly memory: number;
  /** Bytes of weights that stay in memory, shared by all runs. */
  readonly weights: number;
  /** Seconds for which a run goes on without its event-stream client, who may come back. NDJSON clients do not. */
  readonly reconnect: number;
  /** Finished runs that are remembered, with their events. */
  readonly remembered: number;
  /** Bytes of artefacts that are kept; beyond them goes what was not asked for longest. */
  readonly artefacts: number;
  /** Seconds that runs are given to end when the server stops. */
  readonly drain: number;
}

export const DEFAULT_LIMITS: Limits = {
  running: 1,
  waiting: 64,
  waitingPerClient: 16,
  body: 512 * 1024,
  seconds: 3600,
  memory: 16e9,
  weights: 8e9,
  reconnect: 10,
  remembered: 1000,
  artefacts: 50e9,
  drain: 25,
};
