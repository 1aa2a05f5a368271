"""One line in the log for every trial."""

from optuna.trial import FrozenTrial, TrialState


def trial_line(trial: FrozenTrial) -> str:
    """A trial in words: number, state, matched F1, tokens, seconds, and what was reused.

    Args:
        trial: One that ended.
    """
    attrs = trial.user_attrs
    said = [f"trial {trial.number} {trial.state.name.lower()}"]
    if trial.state == TrialState.FAIL:
        said.append(attrs.get("failure", "it is queued again"))
    if "f1" in attrs:
        said.append(f"f1 {attrs['f1']:.3f}")
        said.append(f"{attrs['tokens']:.0f} tokens a session")
    if "seconds" in attrs:
        said.append(f"{attrs['seconds']:.1f} s")
    if reused := [part for part in attrs.get("parts", ()) if part["reused"]]:
        saved = sum(part["seconds"] for part in reused)
        said.append(f"reused {', '.join(part['stage'] for part in reused)} ({saved:.1f} s saved)")
    return ", ".join(said)
