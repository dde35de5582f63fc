"""Options of an evaluation of a text model. This module imports nothing heavy."""

from dataclasses import dataclass, replace
from pathlib import Path

from textdiff.config import Precision, SamplerName, SamplingConfig, UserError, check
from textdiff.text.decoding_config import DecodingConfig, WordDecodingConfig

BASELINES = ("ar", "diffusion-lm", "prior", "bigram", "unigram", "shuffled")


@dataclass(frozen=True)
class EvaluationConfig(WordDecodingConfig):
    """Options of an evaluation. Those of decoding are for samples of the model alone.

    Args:
        data: Held-out text, with the same columns as the run's. If null, the text that the run held
            out.
        n: Number of sentences per row of the table: of different sources for a model of pairs.
        steps: Number of sampling steps, or a list of them, which gives one row each.
        sampler: Sampler of the model.
        mbr: Candidates for each target of a model of pairs. The one that agrees best with the
            others is evaluated. Baselines have as many, except greedy ones.
        rank: The same with the candidate of the fewest nats per token.
        precision: Precision of the network in sampling: auto, bf16 or no (float32). Likelihoods are
            always computed in float32.
        seed: Seed of the samples.
        baselines: Baselines to compare with. ar (autoregressive) and diffusion-lm (that paper's
            recipe) are trained for as long as the model was, and kept for later evaluations.
            prior is the model's Markov prior without the network. bigram, unigram and shuffled are
            counted from the training text. For models of pairs, ar alone. If null, bigram and
            shuffled, or none for models of pairs.
        minutes: Training time of the baselines in minutes. If null, that of the model.
        reference_lm: Causal language model that measures perplexity: a folder, a hub name, or an
            autoregressive run of textdiff with the same vocabulary. If null, a GPT-2 trained from
            scratch on the same text.
        reference_minutes: Training time of that GPT-2. If null, a tenth of the model's training
            time, at most five minutes.
        mauve: Compute MAUVE, with hidden states of the reference model as features. Needs the extra
            `mauve`.
        scored: Number of held-out sentences whose likelihood is estimated, in the order of the
            samples. If that is auto, it is the bound of all words together. Guidance is not used.
        ode: How many of these are also estimated by the probability-flow ODE, which is much slower.
        slow_n: Number of sentences of diffusion-lm, whose sampler takes 2,000 steps.
        out: Folder for report.json, samples.txt, figures.png and the trained baselines. If null,
            evaluation/ in the run folder.
    """

    data: str | None = None
    n: int = 1000
    steps: int | list[int] = 32
    sampler: SamplerName = "ddpm"
    mbr: int = 1
    rank: int | None = None
    precision: Precision = "auto"
    seed: int = 0
    baselines: list[str] | None = None
    minutes: float | None = None
    reference_lm: str | None = None
    reference_minutes: float | None = None
    mauve: bool = False
    scored: int = 200
    ode: int = 20
    slow_n: int = 100
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least = {"n": 10, "scored": 2, "ode": 0, "slow_n": 10, "seed": 0, "mbr": 1}
        for name, least in at_least.items():
            value = getattr(self, name)
            check(value >= least, f"--{name}", f"at least {least}", value)
        check(self.mbr == 1 or not self.rank, "--mbr", "left out with --rank", self.mbr)
        rule = "left out without --order, for the bound would have another order than the samples"
        check(self.window is None or self.order != "auto", "--window", rule, self.window)
        check(not Path(self.out or ".").is_file(), "--out", "a folder", self.out)
        check(bool(self.step_counts), "--steps", "at least 1", self.steps)
        for steps in self.step_counts:
            self.sampling(steps)
        for baseline in self.baselines or []:
            check(baseline in BASELINES, "--baselines", f"of {', '.join(BASELINES)}", baseline)
        for name in ("minutes", "reference_minutes"):
            value = getattr(self, name)
            check(value is None or value > 0, f"--{name}", "positive", value)

    def baselines_for(self, has_sources: bool) -> list[str]:
        """The baselines of a model.

        Args:
            has_sources: Whether it is a model of pairs.

        Raises:
            UserError: If these options do not suit the model.
        """
        if not has_sources:
            rule = "left out without data.source in the evaluated run"
            check(self.mbr == 1, "--mbr", rule, self.mbr)
            check(self.rank is None, "--rank", rule, self.rank)
            return ["bigram", "shuffled"] if self.baselines is None else self.baselines
        for name in ("reference_lm", "reference_minutes", "mauve"):
            if getattr(self, name):
                raise UserError(f"--{name} needs a model without data.source: leave it out")
        for baseline in self.baselines or []:
            check(baseline == "ar", "--baselines", "[ar] for a model of pairs", baseline)
        return self.baselines or []

    def with_usual_decoding(self) -> "EvaluationConfig":
        """These options with the default sampler and decoding, which baselines have."""
        return replace(self, sampler="ddpm", **vars(WordDecodingConfig()))

    @property
    def step_counts(self) -> list[int]:
        """Numbers of sampling steps, as a list."""
        return [self.steps] if isinstance(self.steps, int) else self.steps

    @property
    def bound_order(self) -> str:
        """Order of the words in the bound."""
        return "parallel" if self.order == "auto" else self.order

    @property
    def draws(self) -> int:
        """Random draws per sentence of the bound; few words move at a time in other orders."""
        return 32 if self.bound_order == "parallel" else 64

    @property
    def decoding(self) -> DecodingConfig:
        """Options of the model's decoding."""
        names = vars(WordDecodingConfig())
        return DecodingConfig(**{name: getattr(self, name) for name in names})

    def sampling(self, steps: int) -> SamplingConfig:
        """Options of the sampler with the given number of steps."""
        return SamplingConfig(
            steps, self.sampler, self.seed, batch_size=250, precision=self.precision
        )
