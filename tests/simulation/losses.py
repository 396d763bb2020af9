"""What is lost with an owner: nothing here, since nobody is given up in `local` who has anything."""

from collections.abc import Sequence

from storage import LOCAL, CursorMismatchError, Loss
from tests.simulation.rows import Transaction
from tests.simulation.tables import OwnerEpoch, Tables

SessionKey = tuple[str, str]


class SimulatedLosses(Tables):
    """Which epochs are settled."""

    def epoch_of(self, node_id: str) -> OwnerEpoch:
        """Return a node's epoch as it is committed."""
        return self.rows.committed.get(("owner_epochs", node_id)) or OwnerEpoch("")

    async def list_losses(self) -> list[Loss]:
        def read() -> list[Loss]:
            keys = sorted(key for key in self.rows.committed if key[0] == "owner_epochs")
            owners = [(str(key[1]), self.epoch_of(str(key[1]))) for key in keys]
            return [
                Loss(name, owner.sealed_epoch)
                for name, owner in owners
                if owner.level == LOCAL and owner.sealed_epoch > owner.settled_epoch
            ]

        return await self.server.read(read)

    async def list_session_keys(
        self, after: SessionKey = ("", ""), limit: int = 5_000
    ) -> list[SessionKey]:
        def read() -> list[SessionKey]:
            keys = [key[1:] for key in self.rows.committed if key[0] == "sessions"]
            found = [(str(workspace), str(session)) for workspace, session in keys]
            return sorted(key for key in found if key > after)[:limit]

        return await self.server.read(read)

    async def mark_lost(self, loss: Loss, keys: Sequence[SessionKey], at_ms: int) -> bool:
        owner = await self.server.read(lambda: self.epoch_of(loss.node_id))
        assert owner.sealed_epoch != loss.epoch or owner.settled_epoch >= loss.epoch
        return False

    async def settle_loss(self, loss: Loss) -> None:
        async def settle(transaction: Transaction) -> None:
            await transaction.update(
                [("owner_epochs", loss.node_id)],
                lambda row: row.sealed_epoch == loss.epoch,
                lambda row: row._replace(settled_epoch=loss.epoch),
            )

        await self.server.transact(f"settles {loss.node_id[-4:]}", settle)

    async def settle_whole(self, node_id: str, epoch: int, cursor: int) -> None:
        async def settle(transaction: Transaction) -> None:
            await transaction.update(
                [("owner_epochs", node_id)],
                lambda row: row.epoch == epoch and row.sealed_epoch < epoch,
                lambda row: row._replace(settled_epoch=epoch),
            )
            await self.server.next(transaction)
            found = transaction.read(("flush_cursors", node_id)) or 0
            if found < cursor:
                raise CursorMismatchError(cursor, found)

        await self.server.transact(f"settles {node_id[-4:]}", settle)
