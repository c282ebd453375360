/**
 * Estimates the seconds that are left from how much is done. A step may count anew for each of its parts: what is done falls
 * back then, and the estimate is of that part alone, since what came before was other work.
 *
 * @param started milliseconds, as `now` is
 * @returns of the time and the share done in [0,1]; undefined where nothing is done yet
 */
export const timeLeft = (started: number): (now: number, share: number) => number | undefined => {
  let from = { at: started, share: 0 }, last = 0;
  return (now, share) => {
    if (share < last) from = { at: now, share };
    last = share;
    const gained = share - from.share;
    return gained > 0 ? ((now - from.at) / 1000) * (1 - share) / gained : undefined;
  };
};
