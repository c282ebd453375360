/** A model as settings name it: a folder, and parts from elsewhere in the place of its own. */
import { Effect } from "effect";
import { openBundle } from "../diffusion/bundle.ts";
import { checkBundle } from "../diffusion/networks.ts";

export interface ModelSettings {
  readonly model: string;
  readonly unet?: string | null | undefined;
  readonly text_encoder?: string | null | undefined;
}

/** Opens the model, and checks that every part's weights are those of its network. */
export const openModel = Effect.fnUntraced(function* ({ model, unet, text_encoder }: ModelSettings) {
  const replace = { ...(unet ? { unet } : {}), ...(text_encoder ? { text_encoder } : {}) };
  const bundle = yield* openBundle(model, { replace });
  yield* checkBundle(bundle);
  return bundle;
});
