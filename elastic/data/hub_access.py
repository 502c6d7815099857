"""Whether the Hugging Face hub can be asked, and other libraries' errors in one line."""

from huggingface_hub import constants
from huggingface_hub.utils import get_session

_PATIENCE_S = 5
_BRIEF = 200  # characters of another library's message


def hub_obstacle() -> str:
    """Why the hub cannot be asked; empty if it can. Its own client would retry for half a minute."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE_S)
    except Exception as error:  # of whichever HTTP library the hub's client uses
        return f"{constants.ENDPOINT} cannot be reached: {brief(error)}"
    return ""


def brief(error: BaseException) -> str:
    """An error in one line of bounded length."""
    words = " ".join(str(error).split())
    text = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return text if len(text) <= _BRIEF else f"{text[: _BRIEF - 3]}..."
