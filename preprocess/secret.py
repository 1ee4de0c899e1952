"""What may be a secret: told by a variable's name, or by the form of a value."""

from __future__ import annotations

import re

_SECRET_NAME = re.compile(
    r"TOKEN(?!I[SZ])|SECRET|PASSW|PASSPHRASE|CREDENTIAL|_PWD\b|(?:^|_)(?:PASS|AUTH|BEARER)(?:_|$)"
    r"|(?:^|_|API|ACCESS|PRIVATE)KEYS?(?:_|$)",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"://[^/\s@?#]+:[^/\s@?#]*@"  # a URL with a password
    r"|://[^/\s@?#:]{16,}@"  # a URL with a token for a user
    r"|\b(?:hf|api_org)_[A-Za-z0-9]{20,}"  # Hugging Face
    r"|\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,})"  # GitHub, GitLab
    r"|\bsk-[A-Za-z0-9_-]{20,}"  # OpenAI, Anthropic
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS
    r"|\bxox[abprs]-[\w-]{10,}"  # Slack
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|[?&](?:token|access_token|api_key|sig|signature|X-Amz-Signature)=[^&\s]{8,}",
    re.IGNORECASE,
)
_NO_SECRETS = {"SSH_AUTH_SOCK"}
"""The path of ssh-agent's socket: without it a launcher's ssh finds no key."""

_SWITCHES = {"", "0", "1", "true", "false", "yes", "no", "on", "off"}


def looks_secret(name: str, value: str) -> bool:
    """Whether a variable may hold a secret. Switches (`HF_HUB_DISABLE_IMPLICIT_TOKEN=1`) do not."""
    if name in _NO_SECRETS or value.strip().lower() in _SWITCHES:
        return False
    return bool(_SECRET_NAME.search(name)) or holds_secret(value)


def holds_secret(text: str) -> bool:
    """Whether a text holds what is a secret by its form: a URL with a password, a token of a well-known service."""
    return bool(_SECRET_VALUE.search(text))


def secret_rules() -> dict[str, object]:
    """What `looks_secret` goes by, as plain values for a program on another host.

    Returns:
        Patterns of names and of values, and values that are no secret under any name.
    """
    return {
        "name": f"(?i){_SECRET_NAME.pattern}",
        "value": f"(?i){_SECRET_VALUE.pattern}",
        "switches": sorted(_SWITCHES),
    }
