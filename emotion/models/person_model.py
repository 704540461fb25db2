"""A classifier that adapts to one person: a hierarchical Gaussian model of the features of clips.

Clip i of person p and class c has the features

    x_i = mu_c + b_p + g_pc + e_i,    b_p ~ N(0, B),    g_pc ~ N(0, G),    e_i ~ N(0, E):

everybody's mean of the class, an offset of the person, an offset of the person in that class, and
noise. This is a linear mixed model (Laird and Ware, "Random-Effects Models for Longitudinal Data",
Biometrics 38, 1982) of the form of PLDA (Ioffe, "Probabilistic Linear Discriminant Analysis", ECCV
2006). The posterior of a person's class means is a MAP adaptation (Gauvain and Lee, "Maximum a
Posteriori Estimation for Multivariate Gaussian Mixture Observations of Markov Chains", IEEE
Transactions on Speech and Audio Processing 2, 1994).

**Coordinates.** W = B + G + E is the covariance around the class means, shrunk as in Friedman's
regularized discriminant (JASA 84, 1989). In the basis in which W is the identity and E is diagonal,
E = diag(eps). A few people do not suffice to estimate B and G in full, so they share this basis:
G = rho (I - E) and B = (1 - rho) (I - E). All that follows holds for each coordinate on its own.
Without observations every class is N(mu_c, I), which is the plain discriminant.

**Known emotions.** Let n_c clips of class c have the mean mu_c + y_c. Given b, y_c is
N(b, gamma + eps / n_c), of precision w_c = n_c / (eps + n_c gamma). So b has the precision
1 / beta + sum_c w_c and the mean sum_c w_c y_c over that precision. With k_c = gamma w_c, the
person's mean of class c is mu_c + b + k_c (y_c - b), of variance
gamma (1 - k_c) + (1 - k_c)^2 var(b). One clip in a class moves all classes by b, its own by more.

**Unknown emotions.** Such a clip is a mixture, sum_c pi_c N(mu_c + b, gamma + eps): it informs
about b only, because a class offset learned from guessed classes confirms the guesses. EM fits b
and the class shares pi of the history, under a Dirichlet prior that shrinks pi to uniform. The
features are dependent in ways that W misses, so distances exaggerate the evidence; the E-step
divides them by a temperature (deterministic annealing EM: Ueda and Nakano, Neural Networks 11,
1998). How much the shares of the history differ from pi remains unknown: they move the mean of n
clips by an error of variance kappa var_c(mu_c), which does not fall with n. Each clip therefore
counts with the precision 1 / (gamma + eps + n kappa var_c(mu_c)), so that many neutral clips do not
pass for a person with a neutral face. Each iteration increases `Fit.objective` or leaves it as it
is.

**Prediction.** A clip of class c is N(m_c, eps + var(m_c)). The mean of these variances over the
classes is used for all of them: few observations give flat probabilities, and the classifier stays
linear, so that its logits are sums over features. The softmax of the logits over a temperature is
mixed with a small share of the uniform distribution, for clips that are outliers. Where nothing is
known of the person, the spread of people dominates the variance, and errors in it the calibration;
the logits are multiplied by a factor of their own then (`alone`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from emotion.errors import UserError
from emotion.models.temperature import calibrate

UNKNOWN = -1  # target of a clip whose emotion is unknown
COMPONENTS = 40  # principal components of each block of features
SHRINKAGE = 0.6  # weight of the identity in W and in E
CLASS_SHARE = 0.3  # rho, of a person's variance
NOISE_SHARE = 0.4  # eps where people have no two clips of one class to estimate it from
NOISE_RANGE = (0.05, 0.95)  # of estimates of eps
PRIOR_CLIPS = 20.0  # weight of uniform class shares in a history of unknown emotions, in clips
TEMPERATURE = 5.0  # of predictions, where there are too few people to fit it
GUESS_TEMPERATURE = 15.0  # of the E-step
# kappa, sum_c (s_c - 1/C)^2 / (1 - 1/C) of class shares s: 1/6 for half neutral, a quarter happy
# and the rest the same for three other classes.
COMPOSITION = 1 / 6
OUTLIERS = 0.1  # share of clips whose features say nothing of their class
MAX_ITERATIONS = 200
TOLERANCE = 1e-10  # of the objective, relative


@dataclass(frozen=True)
class PersonModel:
    """The model of everybody: class means, and how much people and clips differ.

    D is the number of features, K of coordinates, C of classes; all arrays are float64.
    """

    projection: np.ndarray  # (D, K)
    lift: np.ndarray  # (K, D), returns coordinates to features; projection after it is the identity
    center: np.ndarray  # (D,)
    means: np.ndarray  # (C, K), mu
    noise: np.ndarray  # (K,), eps
    person: np.ndarray  # (K,), beta
    person_class: np.ndarray  # (K,), gamma
    temperature: float = TEMPERATURE
    alone: float = 1.0  # factor of the logits where nothing is known of the person

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        targets: np.ndarray,
        people: Sequence[str],
        num_classes: int,
        blocks: Sequence[int] = (),
        components: int = COMPONENTS,
        shrinkage: float = SHRINKAGE,
    ) -> "PersonModel":
        """Fit the model to the clips of several people.

        Args:
            features: (N, D).
            targets: (N,) class indices; every class occurs.
            people: N names.
            num_classes: C.
            blocks: widths of groups of features that are reduced separately and treated as
                independent, such as landmarks and blendshapes; one block if empty.
            components: principal components of each block, fewer if there are fewer clips.
            shrinkage: weight of the identity in W and in E, above 0, at most 1.
        """
        features, targets = np.asarray(features, np.float64), np.asarray(targets)
        if missing := set(range(num_classes)) - set(targets.tolist()):
            raise UserError(f"every class needs a clip to fit, got none of classes {missing}")
        edges = np.cumsum([0, *(blocks or [features.shape[1]])])
        assert edges[-1] == features.shape[1]
        _, cells = np.unique(
            [f"{a} {b}" for a, b in zip(targets, people, strict=True)], False, True
        )
        center = features.mean(axis=0)
        projections, lifts, noises = [], [], []
        for low, high in pairwise(edges):
            forth, back, noise = fit_block(
                (features - center)[:, low:high], targets, cells, components, shrinkage
            )
            around = ((low, features.shape[1] - high), (0, 0))
            projections.append(np.pad(forth, around))
            lifts.append(np.pad(back, around[::-1]))
            noises.append(noise)
        projection, noise = np.concatenate(projections, axis=1), np.concatenate(noises)
        return cls(
            projection,
            np.concatenate(lifts),
            center,
            class_means((features - center) @ projection, targets),
            noise,
            (1 - CLASS_SHARE) * (1 - noise),
            CLASS_SHARE * (1 - noise),
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all values, 64 hexadecimal digits."""
        hasher = hashlib.sha256()
        for field in fields(self):
            hasher.update(np.ascontiguousarray(getattr(self, field.name), np.float64).tobytes())
        return hasher.hexdigest()

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """Turn (N, C) logits into calibrated probabilities."""
        softmax = calibrate(logits, self.temperature)
        return (1 - OUTLIERS) * softmax + OUTLIERS / logits.shape[1]

    def reduced(self) -> "PersonModel":
        """Return the same model of the (N, K) coordinates of clips, for many histories."""
        size = len(self.noise)
        return replace(self, projection=np.eye(size), lift=np.eye(size), center=np.zeros(size))

    def adapt(self, features: np.ndarray, targets: np.ndarray) -> "Person":
        """Return the posterior of a person, given N of their clips.

        Args:
            features: (N, D); N may be 0.
            targets: (N,) class indices, `UNKNOWN` where the emotion is.
        """
        return self.fit_person(features, targets).person

    def unknown_person(self) -> "Person":
        """Return the posterior of a person of whom nothing is known."""
        return self.adapt(np.empty((0, len(self.center))), np.empty(0))

    def fit_person(self, features: np.ndarray, targets: np.ndarray) -> "Fit":
        """Do what `adapt` does, and return the objective of every EM iteration as well."""
        features = np.asarray(features, np.float64).reshape(-1, len(self.center))
        targets = np.asarray(targets, np.int64).reshape(-1)
        known = targets != UNKNOWN
        coordinates = (features - self.center) @ self.projection  # (N, K)
        num_classes = len(self.means)
        counts = np.bincount(targets[known], minlength=num_classes)[:, None]  # (C, 1)
        sums = np.zeros_like(self.means)
        np.add.at(sums, targets[known], coordinates[known])
        offsets = np.where(counts > 0, sums / np.maximum(counts, 1) - self.means, 0)  # y
        weights = counts / (self.noise + counts * self.person_class)  # (C, K), w
        precision = 1 / self.person + weights.sum(axis=0)
        mean = (weights * offsets).sum(axis=0) / precision  # (K,), of b
        mean, precision, shares, objective = self._fit_offset(coordinates[~known], mean, precision)
        gain = self.person_class * weights  # (C, K), k
        means = self.means + mean + gain * (offsets - mean)
        variances = self.person_class * (1 - gain) + (1 - gain) ** 2 / precision
        factor = 1.0 if len(targets) else self.alone
        return Fit(Person(self, means, variances, factor), shares, objective)

    def _fit_offset(
        self, coordinates: np.ndarray, prior: np.ndarray, precision: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[float]]:
        """Update (K,) mean and precision of b by EM on (N, K) clips of unknown emotion.

        Returns:
            Mean and precision of b, (C,) class shares pi, and the objective of each iteration.
        """
        size = len(self.means)
        shares = np.full(size, 1 / size)
        if not len(coordinates):
            return prior, precision, shares, []
        clip_precision = 1 / (
            self.noise + self.person_class + len(coordinates) * COMPOSITION * self.means.var(axis=0)
        )
        updated = precision + len(coordinates) * clip_precision
        total, mean, objective = coordinates.sum(axis=0), prior, []
        for _ in range(MAX_ITERATIONS):
            evidence = np.log(shares) - 0.5 / GUESS_TEMPERATURE * distances(
                coordinates - mean, self.means, clip_precision
            )  # (N, C)
            top = evidence.max(axis=1, keepdims=True)
            powers = np.exp(evidence - top)
            mixture = (top + np.log(powers.sum(axis=1, keepdims=True))).sum()
            shares_prior = PRIOR_CLIPS / size * np.log(shares).sum()
            objective.append(
                float(
                    GUESS_TEMPERATURE * (mixture + shares_prior)
                    - 0.5 * (precision * (mean - prior) ** 2).sum()
                )
            )
            if len(objective) > 1 and objective[-1] - objective[-2] <= TOLERANCE * abs(
                objective[-1]
            ):
                break
            guessed = (powers / powers.sum(axis=1, keepdims=True)).sum(axis=0)  # (C,), in clips
            shares = (guessed + PRIOR_CLIPS / size) / (len(coordinates) + PRIOR_CLIPS)
            residuals = total - guessed @ self.means
            mean = (precision * prior + clip_precision * residuals) / updated
        return mean, updated, shares, objective


@dataclass(frozen=True)
class Person:
    """The posterior of one person: a linear classifier of their clips."""

    model: PersonModel
    means: np.ndarray  # (C, K), of the person's class means
    variances: np.ndarray  # (C, K), of the person's class means
    factor: float = 1.0  # of the logits

    @property
    def weight(self) -> np.ndarray:
        """(C, D) weights of the features in the logits."""
        return self._directions @ self.model.projection.T

    @property
    def bias(self) -> np.ndarray:
        """(C,) logits of features that are all 0."""
        halves = 0.5 * (self._directions * self.means).sum(axis=1)
        return -halves - self.weight @ self.model.center

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return (N, C) uncalibrated logits of (N, D) features."""
        return np.asarray(features, np.float64) @ self.weight.T + self.bias

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return (N, C) calibrated probabilities of (N, D) features."""
        return self.model.calibrated(self.logits(features))

    def middle(self, index: int, other: int) -> np.ndarray:
        """Return (D,) features midway between two class means, where their logits are equal."""
        return self.model.center + (self.means[index] + self.means[other]) / 2 @ self.model.lift

    def contributions(self, features: np.ndarray, index: int, other: int) -> np.ndarray:
        """Return what each of (D,) features adds to the logit of one class minus another's.

        The reference is `middle`, so the (D,) contributions add up to the difference.
        """
        weight = self.weight[index] - self.weight[other]
        return weight * (features - self.middle(index, other))

    @property
    def _directions(self) -> np.ndarray:
        """The (C, K) means, divided by the predictive variance of a clip, times the factor."""
        return self.factor * self.means / (self.model.noise + self.variances.mean(axis=0))


@dataclass(frozen=True)
class Fit:
    """A person's posterior, with the course of EM on their clips of unknown emotion."""

    person: Person
    shares: np.ndarray  # (C,), estimated class shares of these clips
    objective: list[float]  # log posterior of b and the shares up to a constant, by iteration


def fit_block(
    features: np.ndarray, targets: np.ndarray, cells: np.ndarray, components: int, shrinkage: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the coordinates of one block of features in which W is the identity and E diagonal.

    Args:
        features: (N, F), of mean 0.
        targets: (N,) class indices.
        cells: (N,) index of person and class together.
        components: the number K of coordinates; fewer if there are fewer clips or features.
        shrinkage: weight of the identity in W and E.

    Returns:
        (F, K) projection, (K, F) lift and (K,) eps.
    """
    _, scale, axes = np.linalg.svd(features, full_matrices=False)
    rank = int((scale > 1e-9 * scale[0]).sum())
    axes = axes[: max(1, min(components, len(features) - 1, rank))]  # (K, F)
    reduced = features @ axes.T
    residuals = reduced - class_means(reduced, targets)[targets]
    covariance = shrink(residuals.T @ residuals / len(residuals), shrinkage)
    values, vectors = np.linalg.eigh(covariance)
    whiten, color = vectors / np.sqrt(values), vectors.T * np.sqrt(values)[:, None]
    freedom = len(cells) - len(np.unique(cells))
    if freedom:
        within = reduced - class_means(reduced, cells)[cells]
        noise, turn = np.linalg.eigh(
            whiten.T @ shrink(within.T @ within / freedom, shrinkage) @ whiten
        )
    else:
        noise, turn = np.full(len(axes), NOISE_SHARE), np.eye(len(axes))
    lift = turn.T @ color @ axes
    return axes.T @ whiten @ turn, lift, np.clip(noise, *NOISE_RANGE)


def class_means(values: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the (C, K) means of (N, K) values by their (N,) index, 0 to C - 1."""
    sums = np.zeros((indices.max() + 1, values.shape[1]))
    np.add.at(sums, indices, values)
    return sums / np.bincount(indices)[:, None]


def shrink(covariance: np.ndarray, shrinkage: float) -> np.ndarray:
    """Shrink a (K, K) covariance towards a multiple of the identity of the same trace."""
    # Without residuals, any multiple of the identity will do.
    variance = np.trace(covariance) / len(covariance) or 1.0
    return (1 - shrinkage) * covariance + shrinkage * variance * np.eye(len(covariance))


def distances(points: np.ndarray, centers: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Return (N, C) squared distances of (N, K) points and (C, K) centers, weighted by (K,)."""
    cross = (points * precision) @ centers.T
    squares = [(values**2 @ precision) for values in (points, centers)]
    return squares[0][:, None] - 2 * cross + squares[1]
