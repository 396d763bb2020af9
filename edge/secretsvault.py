"""The vault of this process: which keys it seals the secrets of agents with.

- Given by `secrets_key`: those, and what is wrong with them is told at the start.
- Not given, and alone: those in `secrets.key` in the data directory, which is made before the first secret is sealed.
- Not given, in a cluster: none. A key made here would be one that no other process knows, so agents with secrets
  are refused until all are given the same.
"""

from functools import partial
from pathlib import Path

from agents import Vault, make_key_file, parse_keys, read_keys
from edge.config import Config
from edge.values import HiddenText

SECRETS_KEY_NAME = "secrets.key"


def open_vault(config: Config) -> Vault:
    """Return the vault that the options lead to. Blocks.

    Raises:
        SecretsKeyInvalidError: what is given as a key, or lies in the data directory, is none.
    """
    given = config.secrets_key
    if isinstance(given, HiddenText):
        return Vault(parse_keys(given.text, config.origins["secrets_key"]))
    if given is not None:
        return Vault(read_keys(given))
    if is_shared(config):
        return Vault()
    path = config.data / SECRETS_KEY_NAME
    return Vault(read_keys(path) if _may_exist(path) else (), partial(make_key_file, path))


def is_shared(config: Config) -> bool:
    """Tell whether other processes are to read what this one seals."""
    return config.link is not None or config.role == "edge"


def _may_exist(path: Path) -> bool:
    """Tell whether there is a file, or something that only reading it will tell."""
    try:
        return path.exists()
    except OSError:
        return True
