"""Text encoders by name.

    builtin:             the text tower of this repository's captioner
    hf:REPO              a transformers encoder or decoder: T5, mT5, UMT5, T5Gemma, CLIP, Gemma, Llama, Qwen;
                         a diffusers repository or folder is entered at text_encoder/
    hf:REPO#SUBFOLDER    another one of its encoders, such as text_encoder_2

In: a name. Out: a description, read without torch, or the encoder with its weights. Never downloads anything
that was not named.
"""

from pipeline.bundle import parse_name
from pipeline.config import TextConfig
from pipeline.errors import ModelError
from tokenizer_stage.text.encoder import TextDescription, TextEncoder

FORMS = ("builtin:", "hf:REPO")
PLACE = "{}"  # in a template: where the caption stands


def describe_text_encoder(name: str, config: TextConfig) -> TextDescription:
    """The description of the encoder of that name, with the limit and template of the config.

    Raises:
        ModelError: there is none, or it cannot do what the config asks.
    """
    if config.template.count(PLACE) != 1:
        raise ModelError(
            f"text.template {config.template!r}", expected=f"one {PLACE}, where the caption stands"
        )
    scheme, argument = parse_name(name, "text encoder", FORMS)
    if scheme == "builtin":
        from tokenizer_stage.text.builtin import describe_builtin

        return describe_builtin(config)
    from tokenizer_stage.text.repository import Repository

    return Repository.at(argument).describe(name, config)


def load_text_encoder(name: str, config: TextConfig) -> TextEncoder:
    """The encoder of that name, on the device that this worker was given."""
    scheme, argument = parse_name(name, "text encoder", FORMS)
    if scheme == "builtin":
        from tokenizer_stage.text.builtin import BuiltinTextEncoder

        return BuiltinTextEncoder(config)
    from tokenizer_stage.text.pretrained import PretrainedTextEncoder

    return PretrainedTextEncoder(name, argument, config)
