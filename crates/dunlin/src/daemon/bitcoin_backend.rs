//! What the API asks of the Bitcoin part.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::{BlockHash, Transaction};
use dunlin_api::BitcoinBackend;
use dunlin_api::backend::{BackendError, ChainOpError, NetTotals, PeerRow, SubmitBlockError, SubmitTxError, Ways};
use dunlin_chain::indexes::Indexes;
use dunlin_chain::{ParsedBlock, View};
use dunlin_mempool::{Accepted, Pool};
use dunlin_peer::{AddressBook, LinkId, NetAddr, NetClass};
use dunlin_relay::{AddKind, Ban, ChainOp, Command, Event, Operated, PeerInfo, Subnet, Which};
use tokio::sync::watch;

use super::bitcoin::Bitcoin;

/// Checking the whole chain takes hours.
const OPERATION_LIMIT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl Bitcoin {
    async fn ask(&self, command: impl FnOnce(u64) -> Command) -> Result<Event, BackendError> {
        self.answers.ask(|ticket| self.reactor.command(command(ticket))).await
    }

    async fn relay_peers(&self) -> Result<Vec<PeerInfo>, BackendError> {
        match self.ask(|ticket| Command::Peers { ticket }).await? {
            Event::Peers { peers, .. } => Ok(peers),
            other => Err(mismatch(&other)),
        }
    }
}

impl Bitcoin {
    /// The list outlives us: it is saved whenever a person changes it.
    async fn save_bans(&self) -> Result<(), BackendError> {
        let bans = self.banned().await?;
        super::peer_files::save_bans(&self.dir, &bans).map_err(|error| BackendError::Internal(format!("{error:#}")))
    }
}

/// A ticket answered with another kind of event would be a defect of the relay.
fn mismatch(event: &Event) -> BackendError {
    BackendError::Internal(format!("unexpected answer {event:?}"))
}

#[async_trait]
impl BitcoinBackend for Bitcoin {
    fn view(&self) -> View {
        self.view.clone()
    }

    fn indexes(&self) -> Indexes {
        self.indexes.clone()
    }

    fn pool(&self) -> Arc<RwLock<Pool>> {
        Arc::clone(&self.pool)
    }

    async fn submit_block(&self, block: Arc<ParsedBlock>) -> Result<bool, SubmitBlockError> {
        match self.ask(|ticket| Command::SubmitBlock { ticket, block }).await? {
            Event::BlockSubmitted { result, .. } => result.map_err(SubmitBlockError::Block),
            other => Err(mismatch(&other).into()),
        }
    }

    async fn submit_tx(&self, tx: Arc<Transaction>) -> Result<Accepted, SubmitTxError> {
        match self.ask(|ticket| Command::SubmitTx { ticket, tx }).await? {
            Event::TxSubmitted { result, .. } => result.map_err(SubmitTxError::Rejected),
            other => Err(mismatch(&other).into()),
        }
    }

    async fn operate(&self, op: ChainOp) -> Result<Operated, ChainOpError> {
        let send = |ticket| self.reactor.command(Command::Operate { ticket, op });
        match self.answers.ask_within(OPERATION_LIMIT, send).await? {
            Event::Operated { result, .. } => result.map_err(ChainOpError::Chain),
            other => Err(mismatch(&other).into()),
        }
    }

    async fn peers(&self) -> Result<Vec<PeerRow>, BackendError> {
        let peers = self.relay_peers().await?;
        let links = self.reactor.links();
        let row = |info: PeerInfo| {
            let stats = links.iter().find(|link| link.id == info.link);
            let (bytes_in, bytes_out) = stats.map_or((0, 0), |stats| (stats.bytes_in, stats.bytes_out));
            PeerRow {
                info,
                bytes_in,
                bytes_out,
            }
        };
        Ok(peers.into_iter().map(row).collect())
    }

    async fn add_node(&self, addr: NetAddr, what: AddKind) -> Result<(), BackendError> {
        if what != AddKind::Onetry {
            let added = self.added_nodes().await?;
            let known = added.iter().any(|(known, _)| *known == addr);
            if what == AddKind::Add && known {
                return Err(BackendError::AlreadyExists(format!("{addr} is already added")));
            }
            if what == AddKind::Remove && !known {
                return Err(BackendError::NotFound(format!("{addr} was not added")));
            }
        }
        self.reactor.command(Command::AddPeer(addr, what));
        Ok(())
    }

    async fn own_addresses(&self) -> Result<Vec<NetAddr>, BackendError> {
        match self.ask(|ticket| Command::OwnAddresses { ticket }).await? {
            Event::OwnAddresses { addrs, .. } => Ok(addrs),
            other => Err(mismatch(&other)),
        }
    }

    fn ways(&self) -> Ways {
        let proxy = |class| Some((class, self.proxies.of(class)?));
        Ways {
            reachable: self.config.reachable,
            proxies: NetClass::ALL.into_iter().filter_map(proxy).collect(),
        }
    }

    async fn added_nodes(&self) -> Result<Vec<(NetAddr, bool)>, BackendError> {
        match self.ask(|ticket| Command::Added { ticket }).await? {
            Event::Added { peers, .. } => Ok(peers),
            other => Err(mismatch(&other)),
        }
    }

    async fn address_book(&self) -> Result<Box<AddressBook>, BackendError> {
        match self.ask(|ticket| Command::Addresses { ticket }).await? {
            Event::Addresses { book, .. } => Ok(book),
            other => Err(mismatch(&other)),
        }
    }

    async fn ping(&self) -> Result<(), BackendError> {
        self.reactor.command(Command::Ping);
        Ok(())
    }

    async fn disconnect(&self, which: Which) -> Result<(), BackendError> {
        let known = self.relay_peers().await?.into_iter().any(|peer| match which {
            Which::Link(link) => peer.link == link,
            Which::Addr(addr) => peer.addr == addr,
        });
        if !known {
            return Err(BackendError::NotFound("no such peer is connected".to_owned()));
        }
        self.reactor.command(Command::Disconnect(which));
        Ok(())
    }

    async fn fetch_block(&self, link: LinkId, hash: BlockHash) -> Result<(), BackendError> {
        match self.ask(|ticket| Command::FetchBlock { ticket, link, hash }).await? {
            Event::BlockAsked { result, .. } => result.map_err(|why| BackendError::Invalid(why.to_owned())),
            other => Err(mismatch(&other)),
        }
    }

    async fn ban(&self, subnet: Subnet, seconds: u64) -> Result<(), BackendError> {
        self.reactor.command(Command::Ban {
            subnet,
            seconds,
            reason: "manual".to_owned(),
        });
        self.save_bans().await
    }

    async fn unban(&self, subnet: Subnet) -> Result<(), BackendError> {
        if !self.banned().await?.iter().any(|ban| ban.subnet == subnet) {
            return Err(BackendError::NotFound(format!("{subnet} is not banned")));
        }
        self.reactor.command(Command::Unban(subnet));
        self.save_bans().await
    }

    async fn banned(&self) -> Result<Vec<Ban>, BackendError> {
        match self.ask(|ticket| Command::Bans { ticket }).await? {
            Event::Bans { bans, .. } => Ok(bans),
            other => Err(mismatch(&other)),
        }
    }

    fn net_totals(&self) -> NetTotals {
        let totals = self.reactor.totals();
        NetTotals {
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
        }
    }

    fn listening(&self) -> Vec<SocketAddr> {
        self.reactor.local_addrs().to_vec()
    }

    fn services(&self) -> u64 {
        dunlin_relay::offered(&self.config, &self.view)
    }

    fn relays_txs(&self) -> bool {
        !self.config.blocks_only
    }

    fn size_on_disk(&self) -> u64 {
        let entries = std::fs::read_dir(self.dir.join("blocks"))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| entry.metadata().ok())
            .map(|file| file.len())
            .sum()
    }

    fn tip_changed(&self) -> watch::Receiver<BlockHash> {
        self.tip.clone()
    }
}
