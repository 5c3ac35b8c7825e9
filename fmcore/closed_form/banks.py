"""The closed form over a random bank of points, instead of all of them: what empirical flow matching regresses on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fmcore.paths import AffinePath
from fmcore.validation import check_finite, check_generator, check_pair, check_time, expand_time
from fmcore.velocity import float32_at_least

# Float64 numbers of a bank handled at once where each row has its own, 8 MB.
PIECE = 2**20
# Weights below exp(FAINT) do not count, and denormal numbers would slow the product down tenfold.
FAINT = -80.0


def draw_bank(
    data: Tensor, size: int, generator: torch.Generator | None = None, replacement: bool = True
) -> tuple[Tensor, Tensor]:
    """Draw the points that join x1 in :func:`bank_velocity`, one bank for a whole batch.

    Args:
        data: (n, *shape), in any dtype: whole-number images are scaled after drawing, like a batch.
        size: M - 1, at least 0.
        generator: draws the rows, on its device.
        replacement: draw independently and uniformly, as Bertrand et al. 2025 do: a point may come twice, and may be
            the x1 of a row. Without, the points of the bank differ. To keep a row's own x1 out of its bank too, pass
            ``exclude=rows == x1_rows[:, None]`` to the loss, x1_rows being the rows of the batch.

    Returns:
        The bank, (size, *shape) like data, and its rows in data, (size,) int64 on the device of data.

    Raises:
        ValueError: for empty data, a negative size, or more points than there are without replacement.
        TypeError: for a generator that is no ``torch.Generator``.
    """
    check_generator(generator)
    n = len(data) if data.ndim else 0
    if n == 0 or size < 0 or (size > n and not replacement):
        raise ValueError(
            f"a bank of {size} points from {n} data points cannot be drawn: size is M - 1 >= 0, and without "
            "replacement at most the number of data points."
        )
    device = data.device if generator is None else generator.device
    if replacement:
        rows = torch.randint(n, (size,), generator=generator, device=device)
    else:
        rows = torch.randperm(n, generator=generator, device=device)[:size]
    rows = rows.to(data.device)
    return data[rows], rows


def bank_velocity(
    path: AffinePath, x0: Tensor, x1: Tensor, t: Tensor | float, bank: Tensor, exclude: Tensor | None = None
) -> Tensor:
    """u_M(x_t, t), the marginal velocity of M points, of which x1 is one, at x_t = alpha_t x1 + sigma_t x0.

        u_M(x_t, t) = sum_i w_i u_t(x_t | b_i),    w = softmax_i( -||x_t - alpha_t b_i||^2 / (2 sigma_t^2) )

    with b_1 = x1 and b_2, ..., b_M the bank (Bertrand et al. 2025, section 4). Over random banks, and over the x1 that
    may have led to x_t, its mean is u*(x_t, t). Its variance is at most that of the conditional velocity, which is the
    case M = 1, and falls with M. That holds for banks drawn independently of x1 with replacement, and for banks of
    different points if a row's own x1 is excluded from its bank (by symmetry: given M points in which x1 is one of
    M, it is point i with probability w_i).

    Near t = 1 nothing cancels: it is computed as d x_t/dt + (alpha' - alpha sigma'/sigma) sum_i w_i (b_i - x1), with
    logits in float64, which autocast and TF32 leave alone.

    Args:
        path: the probability path.
        x0, x1: (B, *shape), source and data samples.
        t: shape () or (B,); weights of times beyond ``path.t_max`` are taken there.
        bank: b_2, ..., b_M: (M - 1, *shape) for all rows, which takes two matrix products, or (B, M - 1, *shape), which
            reads each bank twice. An empty bank gives the conditional velocity.
        exclude: (B, M - 1) bool, the points of the bank that do not count for a row, which then has fewer than M.

    Returns:
        (B, *shape), in the dtype of x1; of 16 bits only this result is, and t may be given in float32.

    Raises:
        ValueError: for a bank or exclude of another shape, on another device or with values that are not finite (the
            latter is looked for on the CPU only), and as ``path.target``.
        TypeError: for a bank of integers, or exclude of anything but bool.
    """
    check_pair(x0, x1)
    dtype, x0, x1 = x1.dtype, float32_at_least(x0), float32_at_least(x1)
    t = check_time(t, x1)
    _check_bank(x1, bank, exclude)
    target = path.target(x0, x1, t)
    time = t.double().clamp(max=path.t_max)
    alpha, sigma = path.alpha(time), path.sigma(time)
    ratio = (alpha / sigma).expand(len(x1))[:, None]
    slope = expand_time(path.d_alpha(time) - path.d_sigma(time) * alpha / sigma, x1)
    noise, own = x0.flatten(1).double(), x1.flatten(1).double()
    shift = (_shared if bank.ndim == x1.ndim else _each)(noise, own, ratio, bank, exclude, target.dtype)
    if shift.device.type == "cpu" and not math.isfinite(shift.sum().item()):
        check_finite("bank", bank)
    return (target + (slope * shift.view(x1.shape)).to(target.dtype)).to(target.dtype if x1.dtype == dtype else dtype)


def _shared(
    noise: Tensor, own: Tensor, ratio: Tensor, bank: Tensor, exclude: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """sum_i w_i (b_i - x1) for one bank, (B, d) in float64."""
    bank = bank.reshape(len(bank), own.shape[1]).double()
    query = ratio * (ratio * own + noise)
    logits = torch.addmm((-0.5 * ratio**2) * bank.square().sum(dim=1), query, bank.T)
    # Relative to the logit of x1, which is -||x0||^2 / 2.
    logits -= ((query - 0.5 * ratio**2 * own) * own).sum(dim=1, keepdim=True)
    weights = _weights(logits, exclude, dtype)
    return torch.addcmul(weights @ bank, weights.sum(dim=1, keepdim=True), own, value=-1)


def _each(
    noise: Tensor, own: Tensor, ratio: Tensor, bank: Tensor, exclude: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The same for a bank (B, M - 1, *shape) of each row's own."""
    shift = torch.empty_like(own)
    rows = max(1, PIECE // max(1, bank.shape[1] * own.shape[1]))
    for start in range(0, len(own), rows):
        part = slice(start, start + rows)
        scale = ratio[part]
        difference = bank[part].reshape(len(scale), bank.shape[1], own.shape[1]).double() - own[part, None]
        inner = (difference @ noise[part, :, None]).squeeze(2)
        logits = scale * inner - 0.5 * scale**2 * difference.square().sum(dim=2)
        weights = _weights(logits, None if exclude is None else exclude[part], dtype)
        shift[part] = (weights[:, None] @ difference).squeeze(1)
    return shift


def _weights(logits: Tensor, exclude: Tensor | None, dtype: torch.dtype) -> Tensor:
    """w_2, ..., w_M from log(w_i / w_1), (B, M - 1) float64; exponentials in ``dtype``, or float32 if that is less."""
    if logits.shape[1] == 0:
        return logits
    if exclude is not None:
        logits = logits.masked_fill(exclude, -torch.inf)
    largest = logits.amax(dim=1, keepdim=True).clamp_(min=0)
    dtype = torch.promote_types(dtype, torch.float32)
    share = (logits - largest).clamp_(min=FAINT).to(dtype).exp_()
    return (share / (share.sum(dim=1, keepdim=True) + torch.exp(-largest).to(dtype))).double()


def _check_bank(x1: Tensor, bank: Tensor, exclude: Tensor | None) -> None:
    shape = x1.shape[1:]
    shared = bank.ndim == x1.ndim and bank.shape[1:] == shape
    each = bank.ndim == x1.ndim + 1 and bank.shape[:1] == x1.shape[:1] and bank.shape[2:] == shape
    if not (shared or each):
        points = ", ".join(map(str, shape))
        raise ValueError(
            f"bank has shape {tuple(bank.shape)} for x1 of shape {tuple(x1.shape)}: pass (M - 1, {points}) for one "
            f"bank for all rows, or ({len(x1)}, M - 1, {points}) for one each."
        )
    if not bank.is_floating_point():
        raise TypeError(f"bank holds {bank.dtype}: scale it to floating point first, like x1.")
    if bank.device != x1.device:
        raise ValueError(f"bank is on {bank.device} and x1 on {x1.device}: move both to one device with .to(device).")
    size = bank.shape[0] if shared else bank.shape[1]
    if exclude is None:
        return
    if exclude.dtype != torch.bool:
        raise TypeError(f"exclude holds {exclude.dtype}: pass booleans, True for points that do not count.")
    if exclude.shape != (len(x1), size):
        raise ValueError(
            f"exclude has shape {tuple(exclude.shape)}: for {len(x1)} samples and a bank of {size} points it has shape "
            f"({len(x1)}, {size})."
        )
