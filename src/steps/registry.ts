/** The built-in steps, in the order in which `sau steps` lists them. */
import { conclude } from "./conclude.ts";
import { denoise } from "./denoise.ts";
import { encode } from "./encode.ts";
import { locate } from "./locate.ts";
import { mask } from "./mask.ts";
import { poisonBadT2I } from "./poison_badt2i.ts";
import { poisonEvilEdit } from "./poison_eviledit.ts";
import { poisonRickrolling } from "./poison_rickrolling.ts";
import { poisonVillan } from "./poison_villan.ts";
import { scan } from "./scan.ts";
import { screen } from "./screen.ts";
import { screenCalibrate } from "./screen_calibrate.ts";
import { unlearn } from "./unlearn.ts";
import { verify } from "./verify.ts";

export const builtinSteps = [
  scan,
  screenCalibrate,
  screen,
  encode,
  denoise,
  locate,
  mask,
  unlearn,
  verify,
  conclude,
  poisonBadT2I,
  poisonEvilEdit,
  poisonRickrolling,
  poisonVillan,
];
