import { softMask, tensor } from "sau";

const field = tensor([2, 2], [3, 0.1, 0, 0.2]);
console.log([...softMask(field, { threshold: "otsu", edge: 12 }).data].map((x) => x.toFixed(2)));
