"""The generation configuration that a base model ships, made such that a trained model can be saved
with it.

Transformers reads settings that contradict each other with a warning, and refuses to save them: a
training would end at its first checkpoint. Engines of ours set their own sampling, so that only the
tokens that end or pad a text matter to them.
"""

from typing import Any

_SWITCHES = ("do_sample", "num_beams", "use_cache", "return_dict_in_generate")
"""Settings on which others depend."""


class GenerationConfigError(ValueError):
    """A generation configuration with which a model cannot be loaded."""


def require_loadable(model: str, revision: str | None) -> None:
    """Raises GenerationConfigError if a model cannot be loaded because of its generation
    configuration; one without any can."""
    from transformers import GenerationConfig

    try:
        GenerationConfig.from_pretrained(model, revision=revision)
    except OSError:
        return
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise GenerationConfigError(
            f"{model}/generation_config.json cannot be used: {reason} Mend that key or take it out"
        ) from error


def make_savable(config: Any) -> None:
    """Changes a GenerationConfig in place as little as it takes to save it; one that can be saved
    stays as it is.

    Sampling settings beside `do_sample` false make it true: they are what the model is to be
    sampled with. Other settings that have no effect are taken out.

    {do_sample: false, temperature: 0.6} → {do_sample: true, temperature: 0.6}
    {num_beams: 1, early_stopping: true} → {num_beams: 1}
    """
    if _can_be_saved(config):
        return
    given = {name: value for name, value in config.to_diff_dict().items() if name[0] != "_"}
    given.pop("transformers_version", None)
    # As it is comes first: of two ways that keep equally many settings, the first is taken.
    ways = [_savable_part(values) for values in (given, given | {"do_sample": True})]
    kept = max(ways, key=lambda part: len(part.keys() & given.keys()))
    for name in given.keys() | kept.keys():
        setattr(config, name, kept.get(name))


def _savable_part(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that can be saved together: the switches, then others by name."""
    from transformers import GenerationConfig

    config = GenerationConfig()
    kept: dict[str, Any] = {}
    for name in sorted(values, key=lambda name: (name not in _SWITCHES, name)):
        setattr(config, name, values[name])
        if _can_be_saved(config):
            kept[name] = values[name]
        else:
            setattr(config, name, None)
    return kept


def _can_be_saved(config: Any) -> bool:
    try:
        config.validate(strict=True)
    except ValueError:
        return False
    return True
