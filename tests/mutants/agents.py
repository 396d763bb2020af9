"""What breaks the registry of agents: secrets that show or move, changes that are lost, walls that fall."""

from tests.mutants.mutant import mutant

VAULT = "tests/agents/test_vault.py::"
SEALED = "tests/agents/test_sealed.py::"
KEYS = "tests/agents/test_secretskey.py::"
REGISTRY = "tests/agents/test_registry.py::"
ROWS = "tests/storage/test_agents.py::"
HTTP = "tests/edge/test_http_agents.py::"
PROCESS = "tests/edge/test_secretsvault.py::"

AGENT_MUTANTS = (
    mutant(
        "a sealed secret can be moved to another agent",
        "agents/vault.py",
        '        return f"{self.workspace}/{self.agent}/{self.field}".encode()',
        '        return f"{self.workspace}/{self.field}".encode()',
        VAULT + "test_a_secret_that_was_moved_elsewhere_is_not_opened",
    ),
    mutant(
        "the oldest key seals",
        "agents/vault.py",
        "        return self._keys[0]\n",
        "        return self._keys[-1]\n",
        VAULT + "test_the_newest_key_seals_and_every_key_opens",
    ),
    mutant(
        "the file of a key can be read by others",
        "agents/secretskey.py",
        "os.O_CLOEXEC, 0o600)",
        "os.O_CLOEXEC, 0o644)",
        KEYS + "test_a_file_of_keys_is_made_once_private_and_whole",
    ),
    mutant(
        "who makes a key second puts it in place of the first",
        "agents/secretskey.py",
        "        with suppress(FileExistsError):\n            os.link(draft, path)",
        "        path.unlink(missing_ok=True)\n        os.link(draft, path)",
        KEYS + "test_of_those_who_make_it_at_once_all_get_the_same",
    ),
    mutant(
        "a process of a cluster makes a key of its own",
        "edge/secretsvault.py",
        "    if is_shared(config):\n        return Vault()\n",
        "",
        PROCESS + "test_in_a_cluster_no_key_is_made",
    ),
    mutant(
        "a header is sent though a line break is in it",
        "agents/sealed.py",
        'r"[!-~](?:[ \\t!-~]*[!-~])?"',
        'r"[!-~](?:[ \\t\\r\\n!-~]*[!-~])?"',
        SEALED + "test_a_value_that_cannot_be_sent_is_refused_and_not_repeated",
    ),
    mutant(
        "a new signing secret ends the present one",
        "agents/sealed.py",
        "SIGNING_SECRETS_MAX = 2",
        "SIGNING_SECRETS_MAX = 1",
        SEALED + "test_two_signing_secrets_are_valid_at_once_the_newest_first",
    ),
    mutant(
        "a change overwrites what was changed meanwhile",
        "storage/agents.py",
        "            agents.c.version == expected.version,\n            agents.c.secrets == expected.secrets,\n",
        "",
        ROWS + "test_a_change_counts_only_if_the_agent_is_as_expected",
        REGISTRY + "test_of_changes_at_once_none_is_lost",
    ),
    mutant(
        "a deleted agent keeps its secrets",
        "storage/agents.py",
        'updated_at_ms=deleted_at_ms, secrets=b"")',
        "updated_at_ms=deleted_at_ms)",
        ROWS + "test_a_deleted_agent_is_hidden_and_its_secrets_are_gone",
    ),
    mutant(
        "an agent that is created again begins at version 1 again",
        "storage/agents.py",
        "        version = agents.version + 1, created_at_ms",
        "        version = 1, created_at_ms",
        ROWS + "test_an_id_that_is_used_again_goes_on_counting",
    ),
    mutant(
        "everybody who may read sees agents",
        "edge/http_agents.py",
        '        principal = caller(self._services, "admin")\n        check_name',
        '        principal = caller(self._services, "read")\n        check_name',
        HTTP + "test_only_a_key_with_the_scope_admin_sees_or_changes_agents",
    ),
)
