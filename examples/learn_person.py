"""Learn one person: predict a clip, correct it, and predict it again.

python examples/learn_person.py CLIP LABEL [PROFILE]
"""

import sys

from emotion import EmotionRecognizer


def main(clip: str, label: str, profile: str = "me.json") -> None:
    """Teach the profile of a person that a clip shows an emotion."""
    recognizer = EmotionRecognizer.load("starter", person=profile)
    before = recognizer.predict(clip)
    recognizer.observe(clip, label)  # writes the profile
    after = recognizer.predict(clip)
    for name, answer in (("before", before), ("after", after)):
        probabilities = answer.probabilities or {}
        print(name, answer.label, f"{probabilities.get(label, 0):.2f} for {label}")
    print("known:", recognizer.profile.counts)


if __name__ == "__main__":
    main(*sys.argv[1:])
