"""Golden values for the mask algebra and the metrics, from the reference implementations.

    pip install numpy==2.4.6 scipy==1.17.1 scikit-image==0.26.0 scikit-learn==1.9.1
    python test/golden/make_metrics.py

writes mask.json and metrics.json beside this file. All numbers derive from one seed.
"""
import json
import pathlib

import numpy as np
import scipy.linalg
import scipy.ndimage
import scipy.stats
import skimage.filters
import skimage.measure
import skimage.metrics
import sklearn.metrics

HERE = pathlib.Path(__file__).parent
rng = np.random.default_rng(20250418)


def f32(a):
    """Rounded to few digits, then to float32: what the JSON says is exactly what both sides compute with."""
    return np.round(np.asarray(a, dtype=np.float64), 4).astype(np.float32).astype(np.float64)


def flat(a):
    return [round(float(x), 4) for x in np.asarray(a).ravel()]


def otsu():
    cases = []
    for kind in ("bimodal", "skewed", "ties", "uniform"):
        if kind == "bimodal":
            x = np.concatenate([rng.normal(0, 1, 200), rng.normal(5, 1, 56)])
        elif kind == "skewed":
            x = np.concatenate([rng.normal(0.1, 0.2, 241), rng.normal(3.0, 0.5, 15)])
        elif kind == "ties":
            x = rng.integers(0, 9, 256)
        else:
            x = rng.uniform(0, 1, 256)
        x = f32(x)
        # As whole numbers, for which scikit-image takes a bin for each value instead of 256 in all.
        whole = np.round(x * 10_000).astype(int)
        cut = skimage.filters.threshold_otsu(whole)
        cases.append({"kind": kind, "values": flat(x), "above": [int(i) for i in np.flatnonzero(whole > cut)]})
    return cases


def blur():
    cases = []
    for (h, w), sigma, radius in [((7, 9), 1.0, 3), ((5, 5), 2.0, 2), ((3, 4), 2.0, 6), ((1, 6), 0.7, 3)]:
        x = f32(rng.normal(size=(h, w)))
        y = scipy.ndimage.gaussian_filter(x, sigma, mode="reflect", radius=radius)
        cases.append({"dims": [h, w], "sigma": sigma, "radius": radius, "values": flat(x), "expected": y.ravel().tolist()})
    return cases


def resize():
    """Averages a fine sampling of scipy's linear (or nearest) interpolant over each new cell: no formula of ours."""
    cases = []
    for (h, w), (to_h, to_w) in [((3, 4), (6, 8)), ((4, 4), (7, 3)), ((8, 6), (2, 3)), ((2, 1), (5, 4))]:
        x = f32(rng.normal(size=(h, w)))
        for method, order in (("area", 0), ("bilinear", 1)):
            fine = 840
            ys = (np.arange(to_h * fine) + 0.5) / (to_h * fine) * h - 0.5
            xs = (np.arange(to_w * fine) + 0.5) / (to_w * fine) * w - 0.5
            rows = scipy.ndimage.map_coordinates(np.eye(h), np.meshgrid(ys, np.arange(h), indexing="ij"), order=order, mode="nearest")
            columns = scipy.ndimage.map_coordinates(np.eye(w), np.meshgrid(xs, np.arange(w), indexing="ij"), order=order, mode="nearest")
            rows = rows.reshape(to_h, fine, h).mean(1)
            columns = columns.reshape(to_w, fine, w).mean(1)
            cases.append({"dims": [h, w], "to": [to_h, to_w], "method": method, "values": flat(x), "expected": (rows @ x @ columns.T).ravel().tolist()})
    return cases


def components():
    cases = []
    for density in (0.3, 0.5, 0.6):
        x = (rng.uniform(size=(9, 11)) < density).astype(int)
        for diagonal in (False, True):
            labels = skimage.measure.label(x, connectivity=2 if diagonal else 1)
            regions = [
                {"cells": int(r.area), "box": [int(r.bbox[1]), int(r.bbox[0]), int(r.bbox[3] - r.bbox[1]), int(r.bbox[2] - r.bbox[0])], "centre": [r.centroid[1] + 0.5, r.centroid[0] + 0.5]}
                for r in skimage.measure.regionprops(labels)
            ]
            cases.append({"dims": list(x.shape), "values": x.ravel().tolist(), "diagonal": diagonal, "regions": regions})
    return cases


def pictures():
    cases = []
    for shape, noise in [((3, 16, 20), 0.05), ((1, 11, 11), 0.3), ((3, 24, 13), 0.5)]:
        a = f32(np.clip(scipy.ndimage.gaussian_filter(rng.uniform(size=shape), (0, 1, 1)), 0, 1))
        b = f32(np.clip(a + rng.normal(size=shape) * noise, 0, 1))
        cases.append({
            "dims": list(shape), "a": flat(a), "b": flat(b),
            "ssim": skimage.metrics.structural_similarity(a, b, channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False),
            "psnr": skimage.metrics.peak_signal_noise_ratio(a, b, data_range=1.0),
        })
    return cases


def frechet():
    cases = []
    for n1, n2, d in [(40, 50, 6), (8, 10, 12), (60, 60, 1)]:
        mix = rng.normal(size=(d, d))
        a, b = f32(rng.normal(size=(n1, d)) @ mix), f32(rng.normal(size=(n2, d)) @ mix * 0.8 + 0.3)
        sa, sb = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
        gap = a.mean(0) - b.mean(0)
        root = scipy.linalg.sqrtm(scipy.linalg.sqrtm(sa).real @ sb @ scipy.linalg.sqrtm(sa).real).real
        cases.append({"dims": [n1, n2, d], "a": flat(a), "b": flat(b), "expected": float(gap @ gap + np.trace(sa) + np.trace(sb) - 2 * np.trace(root))})
    return cases


def eigen():
    x = rng.normal(size=(9, 9))
    x = np.round(x + x.T, 4)
    return {"n": 9, "a": flat(x), "values": np.linalg.eigvalsh(x).tolist()}


def wilson():
    cases = []
    for k, n, confidence in [(0, 10, 0.95), (3, 10, 0.95), (198, 200, 0.95), (200, 200, 0.99), (1, 1, 0.9)]:
        i = scipy.stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
        cases.append({"successes": k, "trials": n, "confidence": confidence, "low": i.low, "high": i.high})
    return cases


def scores():
    cases = []
    for n in (6, 40):
        truth = (rng.uniform(size=n) < 0.4).astype(int)
        truth[0], truth[1] = 0, 1
        score = np.round(truth * 0.5 + rng.normal(size=n), 1)  # one digit: ties
        guess = (score > 0.4).astype(int)
        cases.append({
            "truth": truth.tolist(), "scores": flat(score), "auroc": sklearn.metrics.roc_auc_score(truth, score),
            "f1": sklearn.metrics.f1_score(truth, guess), "precision": sklearn.metrics.precision_score(truth, guess, zero_division=0),
            "recall": sklearn.metrics.recall_score(truth, guess), "cut": 0.4,
            "iou": sklearn.metrics.jaccard_score(truth, guess),
        })
    return cases


def statistics():
    x = np.round(rng.normal(size=48), 4)
    y = np.round(0.6 * x + rng.normal(size=48), 4)
    qs = [0, 0.1, 0.25, 0.5, 0.77, 0.95, 1]
    boot = scipy.stats.bootstrap((y,), np.mean, n_resamples=200_000, confidence_level=0.9, method="percentile", rng=1).confidence_interval
    return {
        "x": flat(x), "y": flat(y), "pearson": scipy.stats.pearsonr(x, y).statistic,
        "quantiles": [[q, float(np.quantile(x, q))] for q in qs],
        "cosine": float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)),
        "bootstrap": [float(boot.low), float(boot.high)],
        "normalQuantile": [[p, float(scipy.stats.norm.ppf(p))] for p in (1e-12, 1e-5, 0.001, 0.025, 0.1, 0.5, 0.6, 0.95, 0.975, 0.9999)],
    }


def patches():
    picture, patch = f32(rng.uniform(size=(2, 3, 9, 10))), f32(rng.uniform(size=(3, 4, 5)))
    picture[1, :, 2:6, 3:8] = f32(0.4 * patch + 0.2 + 0.05 * rng.normal(size=patch.shape))
    region = picture[:, :, 2:6, 3:8].reshape(2, -1)
    return {"dims": [2, 3, 9, 10], "picture": flat(picture), "patchDims": [3, 4, 5], "patch": flat(patch), "x": 3, "y": 2,
            "expected": [scipy.stats.pearsonr(r, patch.ravel()).statistic for r in region]}


mask = {"otsu": otsu(), "blur": blur(), "resize": resize(), "components": components()}
metrics = {"pictures": pictures(), "frechet": frechet(), "eigen": eigen(), "wilson": wilson(), "scores": scores(), "statistics": statistics(), "patches": patches()}
for name, values in (("mask", mask), ("metrics", metrics)):
    (HERE / f"{name}.json").write_text(json.dumps(values) + "\n")
