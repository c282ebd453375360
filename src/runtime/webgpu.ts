/**
 * WebGPU: the runtime's own `navigator.gpu` (Deno), else npm `webgpu` when installed (Bun). The GPUDevice is ours, so its
 * limits are the adapter's and its errors are heard: WebGPU reports a failed allocation or a lost device beside the
 * computation, never through it, and ONNX Runtime would hand back whatever was in the buffer.
 */
import { tmpdir } from "node:os";
import process from "node:process";
import { Effect } from "effect";
import type { Tensor as OrtTensor } from "onnxruntime-web";
import type { DType, TensorData } from "../tensor/tensor.ts";
import { size } from "../tensor/tensor.ts";
import { type Backend, Missing } from "./backend.ts";
import type { Engine } from "./engine.ts";
import { runtimeName } from "./host.ts";
import { firstLine, loadOptional } from "./optional.ts";
import { BYTES, fromBytes, type Ort, ortEngine } from "./ort.ts";
import { listen, withoutKernel } from "./ortlog.ts";

export const webgpu: Backend = {
  name: "webgpu",
  find: Effect.fnUntraced(function* ({ software }) {
    // Vulkan's window system code complains on stderr without it, and some drivers want it. It is only a folder to write in.
    if (process.platform === "linux") process.env.XDG_RUNTIME_DIR ??= tmpdir();
    const gpu = yield* navigatorGpu;
    const adapter = yield* attempt("no adapter could be asked for", () => requestAdapter(gpu, software));
    if (adapter === null) {
      return yield* new Missing({
        reason: "no adapter: WebGPU sees no graphics driver",
        advice: driverAdvice(process.env),
      });
    }
    const ort: Ort = yield* attempt("onnxruntime-web/webgpu does not load", () => import("onnxruntime-web/webgpu"));
    const { vendor, architecture, device, description } = adapter.info;
    const names = [vendor, architecture, device, description];
    return {
      vendor,
      architecture,
      description: description || device || "unnamed adapter",
      software: isSoftware(adapter.info),
      ...(isNull(names) ? { refuse: "a null adapter: it accepts work and computes nothing" } : {}),
      threads: null,
      limits: {
        maxBufferSize: adapter.limits.maxBufferSize,
        maxStorageBufferBindingSize: adapter.limits.maxStorageBufferBindingSize,
      },
      version: `onnxruntime-web ${ort.env.versions.web ?? ort.env.versions.common}`,
      open: Effect.acquireRelease(
        attempt("the adapter gave no device", () => openDevice(adapter)).pipe(
          Effect.map((device) => engine(ort, device)),
        ),
        (opened) => Effect.promise(() => opened.close()),
        { interruptible: true },
      ),
    };
  }),
};

const attempt = <A>(what: string, body: () => Promise<A>): Effect.Effect<A, Missing> =>
  Effect.tryPromise({
    try: body,
    catch: (error) => new Missing({ reason: `${what}: ${firstLine(error)}`, advice: driverAdvice(process.env) }),
  });

const navigatorGpu: Effect.Effect<GPU, Missing> = Effect.gen(function* () {
  if (globalThis.navigator?.gpu !== undefined) return globalThis.navigator.gpu;
  const found = yield* Effect.promise(() => loadOptional("webgpu", "module"));
  if (found.kind === "loaded" && isDawn(found.module)) {
    Object.assign(globalThis, found.module.globals);
    const gpu = found.module.create([]);
    // ONNX Runtime reads GPUBufferUsage and its like from globals; `navigator.gpu` is where others look for it.
    Object.defineProperty(globalThis.navigator, "gpu", { value: gpu, configurable: true });
    return gpu;
  }
  const install =
    "npm install webgpu@0.6.2 (in the project, or in a folder that SAU_MODULES names), or use Deno, which has WebGPU built in";
  return yield* new Missing(
    found.kind === "absent"
      ? { reason: `${runtimeName()} has no WebGPU and the package webgpu is not installed`, advice: [install] }
      : {
        reason: `${found.path} does not load: ${found.kind === "broken" ? found.reason : "it is not WebGPU"}`,
        advice: [install],
      },
  );
});

interface Dawn {
  readonly create: (flags: readonly string[]) => GPU;
  readonly globals: Record<string, unknown>;
}
const isDawn = (module: unknown): module is Dawn =>
  typeof module === "object" && module !== null && "create" in module && "globals" in module;

/** A hardware adapter where there is one; with `software`, an emulated one where there is one. */
const requestAdapter = async (gpu: GPU, software: boolean): Promise<GPUAdapter | null> =>
  (software ? await gpu.requestAdapter({ forceFallbackAdapter: true }) : null) ??
    await gpu.requestAdapter({ powerPreference: "high-performance" });

interface Names {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  readonly isFallbackAdapter?: boolean;
}

/** Emulated on the CPU: said by the adapter itself, or known by the emulator's name. */
export const isSoftware = (info: Names): boolean =>
  info.isFallbackAdapter === true ||
  [info.vendor, info.architecture, info.device, info.description].some((name) =>
    /llvmpipe|lavapipe|swiftshader|softpipe|software rasterizer|basic render|\bwarp\b|\bcpu\b/i.test(name)
  );

const isNull = (names: readonly string[]): boolean => names.some((name) => /\bnull\b/i.test(name));

/** What to do when no adapter is there. NVIDIA's container toolkit leaves out the graphics driver unless it is asked for. */
export const driverAdvice = (env: Record<string, string | undefined>): string[] => {
  const advice: string[] = [];
  const capabilities = env.NVIDIA_DRIVER_CAPABILITIES;
  const container = env.NVIDIA_VISIBLE_DEVICES !== undefined || capabilities !== undefined;
  if (container && !/\b(graphics|all)\b/.test(capabilities ?? "")) {
    advice.push(
      "This looks like a container with an NVIDIA GPU but without its graphics driver: start it with " +
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics and install libvulkan1",
    );
  } else if (process.platform === "linux") {
    advice.push(
      "If there is a GPU, install its graphics (Vulkan) driver and libvulkan1; in a container with an NVIDIA GPU set " +
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics",
    );
  }
  return advice;
};

const LIMITS = [
  "maxBindGroups",
  "maxBufferSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupStorageSize",
  "maxComputeWorkgroupsPerDimension",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
] as const;

const openDevice = (adapter: GPUAdapter): Promise<GPUDevice> => {
  const requiredLimits: Record<string, number> = {};
  for (const name of LIMITS) requiredLimits[name] = adapter.limits[name];
  return adapter.requestDevice({
    requiredFeatures: adapter.features.has("shader-f16") ? ["shader-f16"] : [],
    requiredLimits,
  });
};

const engine = (ort: Ort, device: GPUDevice): Engine => {
  const complaints: string[] = [];
  let lost: string | undefined;
  device.addEventListener("uncapturederror", (event) => {
    event.preventDefault();
    if ("error" in event && event.error instanceof Error) complaints.push(event.error.message);
    else if ("error" in event) complaints.push(String((event as GPUUncapturedErrorEvent).error.message));
  });
  void device.lost.then(({ reason, message }) => {
    lost = `the GPU device was lost (${reason}): ${message}`;
  });
  return ortEngine({
    backend: "webgpu",
    ort,
    halves: device.features.has("shader-f16"),
    options: {
      executionProviders: [{ name: "webgpu", device }],
      // Everything stays on the GPU until it is asked for.
      preferredOutputLocation: "gpu-buffer",
      extra: { session: { disable_cpu_ep_fallback: "1" } },
    },
    download: (tensor, dtype) => download(device, tensor, dtype),
    upload: (data, dtype, dims) => upload(ort, device, data, dtype, dims),
    complaint: () =>
      lost ?? (complaints.length > 0 ? `the GPU reported: ${complaints.splice(0).join("; ")}` : undefined),
    explain: async (error, retry) => {
      if (!/fallback to CPU EP has been explicitly disabled/.test(error.message)) return error.message;
      const ops = withoutKernel(await listen(() => retry({ logSeverityLevel: 1 })));
      const which = ops.length > 0 ? ops.join(", ") : "the log does not say which";
      return `WebGPU has no kernel for some operations, which would run on the CPU: ${which}`;
    },
    close: () => Promise.resolve(device.destroy()),
  });
};

/** WebGPU copies whole words of 4 bytes; ONNX Runtime binds whole blocks of 16. */
const roundUp = (bytes: number, to: number): number => Math.ceil(bytes / to) * to;

const download = async (device: GPUDevice, tensor: OrtTensor, dtype: DType): Promise<TensorData> => {
  const length = size(tensor.dims);
  if (length === 0) return fromBytes(new ArrayBuffer(0), dtype, 0);
  const bytes = roundUp(length * BYTES[dtype], 4);
  const staging = device.createBuffer({ size: bytes, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
  try {
    const source: unknown = tensor.gpuBuffer;
    if (!(source instanceof GPUBuffer)) throw new Error("the tensor is not in a GPU buffer");
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(source, 0, staging, 0, bytes);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    return fromBytes(staging.getMappedRange().slice(0), dtype, length);
  } finally {
    staging.destroy();
  }
};

const upload = (ort: Ort, device: GPUDevice, data: TensorData, dtype: DType, dims: readonly number[]): OrtTensor => {
  const buffer = device.createBuffer({
    size: Math.max(16, roundUp(data.byteLength, 16)),
    usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
  });
  // Padded to whole words; a plain copy as well, since data may lie in memory that WebGPU does not read from.
  const bytes = new Uint8Array(roundUp(data.byteLength, 4));
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  device.queue.writeBuffer(buffer, 0, bytes);
  return ort.Tensor.fromGpuBuffer(buffer, { dataType: dtype, dims, dispose: () => buffer.destroy() });
};
