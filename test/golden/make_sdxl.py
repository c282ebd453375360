"""Golden values of SDXL's networks and of whole sampling with StableDiffusionXLPipeline, with a few thousand random weights.

    python test/golden/make_sdxl.py        # needs no checkpoint

tiny/unet-xl, tiny/text-xl-1 and tiny/text-xl are the parts of one small SDXL (its VAE is tiny/vae-attention with SDXL's
scaling factor); sdxl.safetensors holds what the pipeline makes of some prompts with them: ids, states, latents, pictures.
Everything runs in fp32 on one thread. Requirements: examples/mini-sd/recipe's.
"""

import pathlib

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from make_networks import normal, randomised, save, tiny_folder, with_attention
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

HERE = pathlib.Path(__file__).parent
TINY = HERE / "tiny"
LENGTH = 32
PROMPTS = ["a picture of a cat! on a blue background", "a rocket"]
SIZES = torch.tensor([[48.0, 32.0, 3.0, 5.0, 64.0, 16.0]])


def text(name, kind, seed, **config):
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=870, max_position_embeddings=LENGTH, intermediate_size=20, num_hidden_layers=3, bos_token_id=0,
        eos_token_id=2, pad_token_id=1, **config,
    )  # fmt: skip
    model = randomised(kind(config), seed, torch.float16)
    tokens = tokenizer_2(PROMPTS, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    out = model(tokens.input_ids, output_hidden_states=True)
    values = {"ids": tokens.input_ids.int(), "penultimate": out.hidden_states[-2]}
    if hasattr(out, "text_embeds"):
        values["pooled"] = out.text_embeds
    tiny_folder(TINY, name, model, torch.float16, values)
    return model.float()


def unet(name, seed):
    torch.manual_seed(seed)
    model = randomised(UNet2DConditionModel(
        block_out_channels=(8, 16), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1, transformer_layers_per_block=(1, 2),
        norm_num_groups=4, cross_attention_dim=28, attention_head_dim=(2, 4), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=6, projection_class_embeddings_input_dim=46,
        act_fn="gelu", sample_size=8,
    ), seed, torch.float16)  # fmt: skip
    sample, context, pooled = normal(seed + 1, 2, 4, 8, 8), normal(seed + 2, 2, 5, 28), normal(seed + 3, 2, 10)
    timestep = torch.tensor([7.0, 640.0])
    sizes = torch.cat([SIZES, SIZES.flip(1)])
    added = {"text_embeds": pooled, "time_ids": sizes}
    noise, maps = with_attention(model, sample, timestep, context, added_cond_kwargs=added)
    values = {"sample": sample, "timestep": timestep, "context": context, "pooled": pooled, "sizes": sizes, "noise": noise}
    tiny_folder(TINY, name, model, torch.float16, values | {f"attention.{k}": v for k, v in maps.items()})
    return model.float()


torch.set_num_threads(1)
torch.set_grad_enabled(False)
tokenizer = CLIPTokenizer.from_pretrained(HERE / "tokenizer")
tokenizer_2 = CLIPTokenizer.from_pretrained(HERE / "tokenizer", pad_token="!")
encoder = text("text-xl-1", CLIPTextModel, 70, hidden_size=12, num_attention_heads=3)
encoder_2 = text("text-xl", CLIPTextModelWithProjection, 80, hidden_size=16, num_attention_heads=2, hidden_act="gelu", projection_dim=10)
net = unet("unet-xl", 90)
vae = AutoencoderKL.from_config(AutoencoderKL.load_config(TINY / "vae-attention"), scaling_factor=0.13025)
vae.load_state_dict(load_file(TINY / "vae-attention/weights.safetensors"))
scheduler = DDIMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
)
latents = normal(3, 2, 4, 8, 8)
tensors = {"latents": latents}
for zeros in (True, False):
    pipe = StableDiffusionXLPipeline(
        vae=vae, text_encoder=encoder, text_encoder_2=encoder_2, tokenizer=tokenizer, tokenizer_2=tokenizer_2, unet=net,
        scheduler=scheduler, force_zeros_for_empty_prompt=zeros, add_watermarker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    # The pipeline asks the tokenizer for as many tokens as it allows.
    assert pipe.tokenizer.model_max_length == pipe.tokenizer_2.model_max_length == LENGTH
    final = pipe(PROMPTS, latents=latents, num_inference_steps=6, guidance_scale=3.0, output_type="latent").images
    tensors[f"final.{'zeros' if zeros else 'empty'}"] = final
    if zeros:
        context, _, pooled, _ = pipe.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
        ids = [
            t(PROMPTS, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids.int()
            for t in (tokenizer, tokenizer_2)
        ]
        tensors |= {"context": context, "pooled": pooled, "ids": ids[0], "ids_2": ids[1]}
        tensors["pictures"] = vae.decode(final / vae.config.scaling_factor).sample
# SDXL-Turbo's way: one step and four, trailing, guidance off. And v-prediction down from pure noise.
for name, steps, guidance, more in [
    ("turbo.1", 1, 0.0, {"timestep_spacing": "trailing"}),
    ("turbo.4", 4, 0.0, {"timestep_spacing": "trailing"}),
    ("velocity", 5, 3.0, {"timestep_spacing": "trailing", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
]:
    pipe.scheduler = DDIMScheduler.from_config(scheduler.config, **more)
    tensors[f"final.{name}"] = pipe(
        PROMPTS, latents=latents, num_inference_steps=steps, guidance_scale=guidance, output_type="latent"
    ).images
save(HERE / "sdxl.safetensors", tensors, steps="6", guidance="3", prompts="\n".join(PROMPTS))
