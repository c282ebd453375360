/** What Onnx and ORT pipelines write into model_index.json, as the model has it that they were exported from. */

type Index = Readonly<Record<string, unknown>>;

const ONE = {
  unet: ["diffusers", "UNet2DConditionModel"],
  text_encoder: ["transformers", "CLIPTextModel"],
  vae: ["diffusers", "AutoencoderKL"],
};
const XL = { ...ONE, text_encoder_2: ["transformers", "CLIPTextModelWithProjection"] };

/** Components that stay as they are: not the VAE's two graphs, nor what is of the exporter's own kind (a safety checker, say). */
const isKept = ([name, value]: readonly [string, unknown]): boolean =>
  name !== "vae_encoder" && name !== "vae_decoder" &&
  !(Array.isArray(value) && /onnx|optimum/i.test(value.map(String).join(" ")));

/** The index of the model that was exported, or undefined where the index is of another kind. */
export const exportedIndex = (index: Index): Index | undefined => {
  const found = /^(?:Onnx|ORT)StableDiffusion(XL)?(?:Img2Img)?Pipeline$/.exec(String(index._class_name));
  if (found === null) return undefined;
  const kept = Object.fromEntries(Object.entries(index).filter(isKept));
  return found[1] === undefined
    ? {
      ...kept,
      _class_name: "StableDiffusionPipeline",
      ...ONE,
      safety_checker: [null, null],
      requires_safety_checker: false,
    }
    : { ...kept, _class_name: "StableDiffusionXLPipeline", ...XL };
};
