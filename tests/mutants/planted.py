"""Faults to plant, one line each: what a slip of the hand, or a misread paper, could leave in the core."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        name: the part of the package, and what is wrong.
        file: where it is planted, from the root of the repository.
        old, new: the text there, which must occur once, and what replaces it.
        tests: those that should fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


SOLVERS = ("tests/test_solvers.py", "tests/test_sde.py", "tests/test_solvers_input.py", "tests/test_evaluations.py")
TRAINING = ("tests/test_training.py", "tests/test_training_step.py")
UNET = ("tests/networks/test_unet.py",)
SOURCES = ("tests/sources",)
EVALUATION = ("tests/experiments/test_evaluation.py", "tests/experiments/test_euler_budgets.py")
EXACT = ("tests/experiments/test_exact_velocity.py",)

PLANTED = (
    # paths
    Mutant(
        "paths: OT reaches the data with a spread of 1",
        "fmcore/paths/schedules.py",
        "return (1 - t) + self.sigma_min * t ",
        "return (1 - t) + self.sigma_min ",
        ("tests/test_paths.py",),
    ),
    Mutant(
        "paths: slope of OT without sigma_min",
        "fmcore/paths/schedules.py",
        "return torch.full_like(t, -(1 - self.sigma_min))",
        "return torch.full_like(t, -1.0)",
        ("tests/test_paths.py",),
    ),
    Mutant(
        "paths: noise rate of VP not halved",
        "fmcore/paths/schedules.py",
        "s * s * ((self.beta_max - self.beta_min) / 2)",
        "s * s * (self.beta_max - self.beta_min)",
        ("tests/test_paths.py",),
    ),
    Mutant(
        "paths: VP runs from data to noise",
        "fmcore/paths/schedules.py",
        "return self.beta_min + (1 - t) * (self.beta_max - self.beta_min)",
        "return self.beta_min + t * (self.beta_max - self.beta_min)",
        ("tests/test_paths.py",),
    ),
    Mutant(
        "paths: sign of the velocity of VE",
        "fmcore/paths/schedules.py",
        "return -self.log_ratio * self.sigma(t)",
        "return self.log_ratio * self.sigma(t)",
        ("tests/test_paths.py",),
    ),
    Mutant(
        "paths: score without the division by sigma",
        "fmcore/paths/affine.py",
        "return -self.velocity_to_noise(velocity, x, t) / self._at(t, x)[1]",
        "return -self.velocity_to_noise(velocity, x, t)",
        ("tests/test_paths.py",),
    ),
    Mutant(
        "paths: diffusion without its factor 2",
        "fmcore/paths/affine.py",
        "return (2 * sigma * (",
        "return (sigma * (",
        ("tests/test_paths.py", "tests/test_sde.py"),
    ),
    # losses
    Mutant(
        "losses: times are drawn up to 1, not t_max",
        "fmcore/losses.py",
        "return path.t_max * torch.rand(",
        "return torch.rand(",
        ("tests/test_losses.py", "tests/test_empirical_flow_matching.py"),
    ),
    Mutant(
        "losses: score matching with the noise, not minus the noise",
        "fmcore/losses.py",
        "_output(model, xt, t), -x0, t, weight)",
        "_output(model, xt, t), x0, t, weight)",
        ("tests/test_losses.py",),
    ),
    Mutant(
        "losses: ScoreFlow with g, not g squared",
        "fmcore/losses.py",
        "(path.diffusion(s) / path.sigma(s)) ** 2",
        "(path.diffusion(s) / path.sigma(s))",
        ("tests/test_losses.py",),
    ),
    # closed form
    Mutant(
        "closed form: weights with the variance, not twice the variance",
        "fmcore/closed_form/empirical.py",
        "squares.to(query), value=-0.5)",
        "squares.to(query), value=-1.0)",
        ("tests/test_closed_form.py",),
    ),
    Mutant(
        "closed form: near the data, differences without alpha",
        "fmcore/closed_form/empirical.py",
        "(query[r].double() - alpha[r] * self._points(c, alpha))",
        "(query[r].double() - self._points(c, alpha))",
        ("tests/test_closed_form.py", "tests/test_closed_form_late.py"),
    ),
    Mutant(
        "closed form: hybrids change hands after the switch",
        "fmcore/closed_form/hybrid.py",
        "before = t < self.switch",
        "before = t <= self.switch",
        ("tests/test_closed_form_hybrid.py",),
    ),
    # velocities, guidance, solvers
    Mutant(
        "velocity: the time change without its derivative",
        "fmcore/velocity.py",
        "(factor - 1) * y + factor * velocity(",
        "(factor - 1) * y + velocity(",
        ("tests/test_velocity.py",),
    ),
    Mutant(
        "guidance: label and none change places",
        "fmcore/guidance.py",
        "torch.cat([none, labels]))",
        "torch.cat([labels, none]))",
        ("tests/test_guidance.py",),
    ),
    Mutant(
        "guidance: one forward pass is counted, not two",
        "fmcore/guidance.py",
        "count_evaluations(self.evaluations * one.total)",
        "count_evaluations(one.total)",
        ("tests/test_guidance.py", "tests/test_evaluations.py"),
    ),
    Mutant(
        "solvers: the SDE with half the drift of the score",
        "fmcore/solvers/sde.py",
        "direction * g**2 / 2 *",
        "direction * g**2 / 4 *",
        SOLVERS,
    ),
    Mutant(
        "solvers: the SDE runs backwards with the forward sign",
        "fmcore/solvers/sde.py",
        "direction = 1.0 if t1 > t0 else -1.0",
        "direction = 1.0",
        SOLVERS,
    ),
    Mutant(
        "solvers: noise of the SDE by the step, not its root",
        "fmcore/solvers/sde.py",
        "g * math.sqrt(abs(step)) * noise",
        "g * abs(step) * noise",
        SOLVERS,
    ),
    Mutant(
        "solvers: the first guess of an adaptive solver leads past the end",
        "fmcore/solvers/counted.py",
        "t = t.clamp(self.first, self.last)",
        "t = t.clamp(self.first)",
        SOLVERS,
    ),
    Mutant(
        "solvers: a start with NaN is not refused",
        "fmcore/solvers/ode.py",
        '    check_finite("x0", x0)\n\n\ndef empty_solution',
        "\n\ndef empty_solution",
        SOLVERS,
    ),
    Mutant(
        "solvers: states of 16 bits stay in 16 bits",
        "fmcore/solvers/ode.py",
        "isinstance(state, tuple) else float32_at_least(state)",
        "isinstance(state, tuple) else state",
        ("tests/test_low_precision.py",),
    ),
    # likelihood
    Mutant(
        "likelihood: the change of density has the wrong sign",
        "fmcore/likelihood/density.py",
        "source.log_prob(x[-1]) + change[-1]",
        "source.log_prob(x[-1]) - change[-1]",
        ("tests/test_likelihood.py",),
    ),
    Mutant(
        "likelihood: Hutchinson's estimate is a sum over probes",
        "fmcore/likelihood/density.py",
        'total / (1 if divergence == "exact" else probes)',
        "total / 1",
        ("tests/test_likelihood.py",),
    ),
    Mutant(
        "likelihood: probes are 0 and 1, not -1 and 1",
        "fmcore/likelihood/density.py",
        "vectors = 2 * signs.to(float32_at_least(x1)) - 1",
        "vectors = signs.to(float32_at_least(x1))",
        ("tests/test_likelihood.py",),
    ),
    Mutant(
        "likelihood: bits of 8-bit images whatever the levels",
        "fmcore/likelihood/bits.py",
        "math.log2(levels / 2)\n",
        "math.log2(256 / 2)\n",
        ("tests/test_likelihood.py",),
    ),
    Mutant(
        "likelihood: K draws are summed, not averaged",
        "fmcore/likelihood/bits.py",
        " - math.log(draws))",
        ")",
        ("tests/test_likelihood.py",),
    ),
    Mutant(
        "likelihood: a hidden gradient is not looked for",
        "fmcore/likelihood/hidden_gradients.py",
        "if hidden.double().mean() > 0.5:",
        "if hidden.double().mean() > 1:",
        ("tests/test_likelihood.py", "tests/test_likelihood_gradients.py"),
    ),
    # couplings
    Mutant(
        "couplings: optimal pairs across classes",
        "fmcore/couplings/minibatch.py",
        "groups = rows_by_class(labels, len(x1)) if labels is not None else",
        "groups = rows_by_class(labels, len(x1)) if labels is None else",
        ("tests/test_couplings.py", "tests/test_couplings_classes.py"),
    ),
    Mutant(
        "couplings: reflow keeps the graph",
        "fmcore/couplings/fixed.py",
        "    with torch.no_grad():\n        x1 = torch.cat([flow(batch)",
        "    with torch.enable_grad():\n        x1 = torch.cat([flow(batch)",
        ("tests/test_couplings_fixed.py",),
    ),
    # sources
    Mutant(
        "sources: norm alignment without the change of volume",
        "fmcore/sources/norms.py",
        "math.log(self.factor)",
        "0 * math.log(self.factor)",
        SOURCES,
    ),
    Mutant(
        "sources: noise is scaled up, not down",
        "fmcore/sources/norms.py",
        "return self.source.sample(n, generator, device) / self.factor",
        "return self.source.sample(n, generator, device) * self.factor",
        SOURCES,
    ),
    Mutant(
        "sources: pruning accepts every proposal within the threshold",
        "fmcore/sources/pruned.py",
        "(worst <= self.threshold) & (chance.log() < log_rate)",
        "(worst <= self.threshold) & (chance <= 1)",
        SOURCES,
    ),
    Mutant(
        "sources: only one end of an axis is looked at",
        "fmcore/sources/axes.py",
        "largest[:, 0] <= tau, largest[:, 1] <= tau",
        "largest[:, 0] <= tau, largest[:, 0] <= tau",
        SOURCES,
    ),
    Mutant(
        "sources: directions of von Mises and Fisher without the part aside",
        "fmcore/sources/von_mises_fisher.py",
        "noise - (noise * means).sum(dim=1, keepdim=True) * means",
        "noise",
        SOURCES,
    ),
    Mutant(
        "sources: masked noise is not standardized",
        "fmcore/sources/cosine_transform.py",
        "device=device)) / self.std",
        "device=device))",
        SOURCES,
    ),
    Mutant(
        "sources: a mixture's components are equally likely",
        "fmcore/sources/mixture.py",
        "ends = self.weights.double().cumsum(0)",
        "ends = torch.ones_like(self.weights).double().cumsum(0)",
        SOURCES,
    ),
    # networks
    Mutant(
        "U-Net: the time is not stretched",
        "fmcore/networks/unet.py",
        "angles = TIME_SCALE * t.float()",
        "angles = t.float()",
        UNET,
    ),
    Mutant(
        "U-Net: no labels mean class 0",
        "fmcore/networks/unet.py",
        "self.label.num_embeddings - 1, device",
        "0, device",
        UNET,
    ),
    Mutant(
        "U-Net: blocks without their residual",
        "fmcore/networks/unet.py",
        "self.attention(self.skip(x) + self.after(h))",
        "self.attention(self.after(h))",
        UNET,
    ),
    Mutant(
        "U-Net: the last layer does not start at zero",
        "fmcore/networks/unet.py",
        "zeroed(nn.Conv2d(now, images, 3, padding=1))",
        "nn.Conv2d(now, images, 3, padding=1)",
        UNET,
    ),
    Mutant(
        "U-Net: no dropout",
        "fmcore/networks/unet.py",
        "nn.Dropout(dropout)",
        "nn.Dropout(0)",
        UNET,
    ),
    # training
    Mutant(
        "averaging: the decay is that of the next step",
        "fmcore/training/step.py",
        "ema_decay(self.config.ema, step))",
        "ema_decay(self.config.ema, step + 1))",
        TRAINING,
    ),
    Mutant(
        "averaging: another constant of the warm-up",
        "fmcore/training/averaging.py",
        "(1 + updates) / (10 + updates)",
        "(1 + updates) / (20 + updates)",
        TRAINING,
    ),
    Mutant(
        "averaging: buffers are not copied",
        "fmcore/training/averaging.py",
        "        ours.copy_(buffer)\n",
        "        ours.copy_(ours)\n",
        TRAINING,
    ),
    Mutant(
        "training: the same loss noise in every micro-batch",
        "fmcore/training/step.py",
        'f"noise {step} {start}"',
        'f"noise {step}"',
        TRAINING,
    ),
    Mutant(
        "training: the same loss noise in every step",
        "fmcore/training/step.py",
        'f"noise {step} {start}"',
        'f"noise {start}"',
        TRAINING,
    ),
    Mutant(
        "training: the same dropout in every micro-batch",
        "fmcore/training/step.py",
        'f"dropout {step} {start}"',
        'f"dropout {step}"',
        TRAINING,
    ),
    Mutant(
        "training: the network stays in evaluation mode",
        "fmcore/training/loop.py",
        "        model.train()\n",
        "",
        TRAINING,
    ),
    Mutant(
        "training: the average is left in training mode",
        "fmcore/training/step.py",
        "AveragedModel(model).eval()",
        "AveragedModel(model)",
        TRAINING,
    ),
    Mutant(
        "training: micro-batches of unequal size count alike",
        "fmcore/training/step.py",
        "(len(part) / self.config.batch)",
        "(1 / len(self.parts))",
        TRAINING,
    ),
    Mutant(
        "training: the gradient is not clipped",
        "fmcore/training/step.py",
        "nn.utils.clip_grad_norm_(self.model.parameters(), most)",
        "nn.utils.clip_grad_norm_(self.model.parameters(), 1e9)",
        TRAINING,
    ),
    Mutant(
        "training: the learning rate of the step before",
        "fmcore/training/step.py",
        "learning_rate(self.config, step)",
        "learning_rate(self.config, max(0, step - 1))",
        TRAINING,
    ),
    Mutant(
        "training: every epoch in the same order",
        "fmcore/training/batches.py",
        'seeded_generator(seed, f"epoch {epoch}")',
        'seeded_generator(seed, "epoch")',
        TRAINING,
    ),
    Mutant(
        "training: flips of all images or of none",
        "fmcore/training/batches.py",
        "torch.rand(len(images), generator=generator, device=generator.device) < 0.5",
        "torch.rand(1, generator=generator, device=generator.device).expand(len(images)) < 0.5",
        ("tests/test_training.py", "tests/experiments/test_train_and_evaluate.py"),
    ),
    Mutant(
        "training: the cosine ends at half the rate",
        "fmcore/training/schedule.py",
        "return config.lr * (1 + math.cos(math.pi * done)) / 2",
        "return config.lr * (1 + math.cos(math.pi * done / 2)) / 2",
        TRAINING,
    ),
    # metrics
    Mutant(
        "metrics: Frechet distance without the means",
        "fmcore/metrics/frechet.py",
        "float(between + covariance_a.trace()",
        "float(covariance_a.trace()",
        ("tests/metrics/test_frechet.py",),
    ),
    Mutant(
        "metrics: moments divided by n, not n - 1",
        "fmcore/metrics/features.py",
        "/ (len(images) - 1)",
        "/ len(images)",
        ("tests/metrics/test_features.py",),
    ),
    Mutant(
        "metrics: reference moments with mirror images",
        "fmcore/metrics/features.py",
        "        return moments(space, data.train)\n",
        "        return moments(space, torch.cat([data.train, data.train.flip(-1)]))\n",
        ("tests/metrics/test_features.py", *EVALUATION),
    ),
    Mutant(
        "metrics: the nearest image is compared with itself",
        "fmcore/metrics/memorization.py",
        "torch.where(nearest == 0, 0.0, nearest / second)",
        "torch.where(nearest == 0, 1.0, nearest / second)",
        ("tests/metrics/test_memorization.py",),
    ),
    Mutant(
        "metrics: MMD with the biased estimate",
        "fmcore/metrics/two_sample.py",
        "(total(x, x, mode, kernel) - len(x))",
        "total(x, x, mode, kernel)",
        ("tests/metrics/test_two_sample.py",),
    ),
    Mutant(
        "metrics: the divergence of modes the other way round",
        "fmcore/metrics/coverage.py",
        "share_divergence(_shares(b, centres), _shares(a, centres))",
        "share_divergence(_shares(a, centres), _shares(b, centres))",
        ("tests/metrics/test_coverage.py",),
    ),
    Mutant(
        "metrics: velocity_mse is a sum over dimensions",
        "fmcore/metrics/velocities.py",
        "(learned - exact).square().flatten(1).mean(dim=1)",
        "(learned - exact).square().flatten(1).sum(dim=1)",
        ("tests/metrics/test_velocities.py",),
    ),
    # data
    Mutant(
        "data: dequantization noise of half a bin",
        "fmcore/data/images.py",
        "dtype=torch.float32).to(images.device)",
        "dtype=torch.float32).to(images.device) / 2",
        ("tests/test_data_digits.py", "tests/test_likelihood.py", "tests/test_data_cifar10.py"),
    ),
    # experiments
    Mutant(
        "evaluation: the first held-out images, not spread ones",
        "fmcore/experiments/evaluate/frechet.py",
        "torch.arange(wanted) * count // wanted",
        "torch.arange(wanted)",
        EVALUATION,
    ),
    Mutant(
        "evaluation: held-out images are compared with themselves",
        "fmcore/experiments/evaluate/frechet.py",
        "features.distance(one.held_out, one.train)",
        "features.distance(one.held_out, one.held_out)",
        EVALUATION,
    ),
    Mutant(
        "evaluation: nearest images of the whole split",
        "fmcore/experiments/evaluate/nearest.py",
        "resident(run.training_images, run.device)",
        "resident(run.data.train, run.device)",
        (*EVALUATION, "tests/metrics/test_memorization.py"),
    ),
    Mutant(
        "evaluation: the record says K = 1 whatever the draws",
        "fmcore/experiments/evaluate/likelihoods.py",
        "K = {settings.draws}, ",
        "K = 1, ",
        EVALUATION,
    ),
    Mutant(
        "evaluation: the epoch of the curve by the whole split",
        "fmcore/experiments/evaluate/curve.py",
        "/ len(run.training_images)",
        "/ len(run.data.train)",
        (*EVALUATION, "tests/experiments/test_snapshots.py"),
    ),
    Mutant(
        "budgets: aligned steps reuse the run's own samples",
        "fmcore/experiments/evaluate/euler_budgets.py",
        "if source is None and factor == 1 and own_solver:",
        "if source is None and own_solver:",
        EVALUATION,
    ),
    Mutant(
        "budgets: the source is aligned with the whole split",
        "fmcore/experiments/evaluate/euler_budgets.py",
        "parts = run.training_images.split(1000)",
        "parts = run.data.train.split(1000)",
        EVALUATION,
    ),
    Mutant(
        "exact velocity: its time is not clamped",
        "fmcore/experiments/evaluate/exact_velocity.py",
        "time = min(t, run.path.t_max)",
        "time = t",
        EXACT,
    ),
    Mutant(
        "exact velocity: the noise has the scale of the path twice",
        "fmcore/experiments/evaluate/exact_velocity.py",
        "run.fitted.source.sample(len(rows), generator)",
        "run.source.sample(len(rows), generator)",
        EXACT,
    ),
    Mutant(
        "exact velocity: no mirror images where they were trained on",
        "fmcore/experiments/evaluate/exact_velocity.py",
        "torch.cat([images, images.flip(-1)]) if run.configuration.flips else images",
        "images",
        EXACT,
    ),
    Mutant(
        "bits/dim: samples of every chunk share their noise",
        "fmcore/experiments/evaluate/bits_per_dim.py",
        'f"dequantization {number} {draw}"',
        'f"dequantization {draw}"',
        ("tests/experiments/test_bits_per_dim.py",),
    ),
    Mutant(
        "run: a loaded network is left in training mode",
        "fmcore/experiments/run/finished.py",
        ".to(self.device).eval().requires_grad_(False)",
        ".to(self.device).requires_grad_(False)",
        ("tests/experiments/test_train_and_evaluate.py", "tests/experiments/test_samples.py"),
    ),
    Mutant(
        "run: a kept network is loaded in training mode",
        "fmcore/experiments/run/pretrained.py",
        "len(classes)).eval().requires_grad_(False)",
        "len(classes)).requires_grad_(False)",
        ("tests/test_training_step.py", "tests/experiments/test_pretrained.py"),
    ),
    Mutant(
        "run: pruning axes always with mirror images",
        "fmcore/experiments/run/pruning_axes.py",
        "sources.pruning_axes(images, tau, flips,",
        "sources.pruning_axes(images, tau, True,",
        ("tests/experiments/test_fitted_source.py",),
    ),
    Mutant(
        "run: train_images are the first ones",
        "fmcore/experiments/run/training_batch.py",
        "torch.randperm(len(images.train), generator=generator)[:count]",
        "images.train[:count]",
        ("tests/papers/test_bertrand2025.py", "tests/experiments/test_train_and_evaluate.py"),
    ),
    Mutant(
        "run: all chunks of samples start from the same noise",
        "fmcore/experiments/run/samples.py",
        'f"{purpose} {number}"',
        'f"{purpose}"',
        ("tests/experiments/test_samples.py",),
    ),
)
