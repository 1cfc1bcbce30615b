//! The body of a JSON-RPC request: parsing, batches, the order and types of arguments, and every method down to the
//! node behind it, which has the first block of regtest, answers what it can from that, and changes nothing.
#![no_main]

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, RwLock};
use std::time::Instant;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, header};
use bitcoin::{BlockHash, Transaction};
use bytes::Bytes;
use dunlin_api::backend::{
    AddKind, AddRequest, AddressBook, BackendError, Ban, ChainOpError, LinkId, NetTotals, PeerRow, Priority,
    SubmitBlockError, SubmitTxError, Subnet, TorrentStatus, Which,
};
use dunlin_api::rpc::{Auth, Options, Shared, router};
use dunlin_api::{BitcoinBackend, Node, Stop, TorrentBackend};
use dunlin_chain::indexes::Indexes;
use dunlin_chain::{Chain, Network, Params, ParsedBlock, View};
use dunlin_mempool::{Accepted, Pool};
use dunlin_relay::{ChainOp, Operated};
use dunlin_torrent::{InfoHash, Metainfo};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tower::ServiceExt;

/// A node that has a chain and does nothing.
struct Still {
    _chain: std::sync::Mutex<Chain>,
    view: View,
    pool: Arc<RwLock<Pool>>,
    tip: watch::Sender<BlockHash>,
}

fn no<T>() -> Result<T, BackendError> {
    Err(BackendError::Unavailable("not here".into()))
}

#[async_trait]
impl BitcoinBackend for Still {
    fn view(&self) -> View {
        self.view.clone()
    }
    fn indexes(&self) -> Indexes {
        Indexes::default()
    }
    fn pool(&self) -> Arc<RwLock<Pool>> {
        self.pool.clone()
    }
    async fn submit_block(&self, _: Arc<ParsedBlock>) -> Result<bool, SubmitBlockError> {
        Ok(no()?)
    }
    async fn submit_tx(&self, _: Arc<Transaction>) -> Result<Accepted, SubmitTxError> {
        Ok(no()?)
    }
    async fn operate(&self, _: ChainOp) -> Result<Operated, ChainOpError> {
        Ok(no()?)
    }
    async fn peers(&self) -> Result<Vec<PeerRow>, BackendError> {
        Ok(Vec::new())
    }
    async fn add_node(&self, _: NetAddr, _: AddKind) -> Result<(), BackendError> {
        Ok(())
    }
    async fn added_nodes(&self) -> Result<Vec<(SocketAddr, bool)>, BackendError> {
        Ok(Vec::new())
    }
    async fn address_book(&self) -> Result<Box<AddressBook>, BackendError> {
        no()
    }
    async fn ping(&self) -> Result<(), BackendError> {
        Ok(())
    }
    async fn disconnect(&self, _: Which) -> Result<(), BackendError> {
        no()
    }
    async fn fetch_block(&self, _: LinkId, _: BlockHash) -> Result<(), BackendError> {
        no()
    }
    async fn ban(&self, _: Subnet, _: u64) -> Result<(), BackendError> {
        Ok(())
    }
    async fn unban(&self, _: Subnet) -> Result<(), BackendError> {
        no()
    }
    async fn banned(&self) -> Result<Vec<Ban>, BackendError> {
        Ok(Vec::new())
    }
    fn net_totals(&self) -> NetTotals {
        NetTotals::default()
    }
    fn listening(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
    fn services(&self) -> u64 {
        9
    }
    fn relays_txs(&self) -> bool {
        true
    }
    fn size_on_disk(&self) -> u64 {
        0
    }
    fn tip_changed(&self) -> watch::Receiver<BlockHash> {
        self.tip.subscribe()
    }
}

#[async_trait]
impl TorrentBackend for Still {
    async fn list(&self) -> Result<Vec<TorrentStatus>, BackendError> {
        Ok(Vec::new())
    }
    async fn add(&self, _: AddRequest) -> Result<InfoHash, BackendError> {
        no()
    }
    async fn remove(&self, _: InfoHash, _: bool) -> Result<(), BackendError> {
        no()
    }
    async fn pause(&self, _: InfoHash) -> Result<(), BackendError> {
        Ok(())
    }
    async fn resume(&self, _: InfoHash) -> Result<(), BackendError> {
        Ok(())
    }
    async fn metainfo(&self, _: InfoHash) -> Result<Option<Arc<Metainfo>>, BackendError> {
        Ok(None)
    }
    async fn recheck(&self, _: InfoHash) -> Result<(), BackendError> {
        Ok(())
    }
    async fn prioritise(&self, _: InfoHash, _: Vec<(usize, Priority)>) -> Result<(), BackendError> {
        Ok(())
    }
    async fn limit(&self, _: Option<InfoHash>, _: Option<u64>, _: Option<u64>) -> Result<(), BackendError> {
        Ok(())
    }
    async fn read(&self, _: InfoHash, _: u64, _: u64, _: u32) -> Result<Bytes, BackendError> {
        no()
    }
    fn end_stream(&self, _: InfoHash, _: u64) {}
    fn listening(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

static ROUTER: LazyLock<axum::Router> = LazyLock::new(|| {
    let chain = Chain::in_memory(Params::new(Network::Regtest)).expect("memory does not fail");
    let view = chain.view();
    let still = Arc::new(Still {
        pool: Arc::new(RwLock::new(Pool::new(Default::default(), view.clone()))),
        tip: watch::Sender::new(view.tip().hash),
        view,
        _chain: chain.into(),
    });
    let node = Node {
        network: Network::Regtest,
        version: "0".into(),
        user_agent: "/fuzz/".into(),
        started: Instant::now(),
        data_dir: "/nowhere".into(),
        bitcoin: Some(still.clone()),
        torrent: Some(still),
        zmq: None,
        streams: dunlin_api::stream::Base::default(),
        stop: Stop::new(),
    };
    let mut auth = Auth::default();
    auth.add_password("u", "p");
    let options = Options {
        auth,
        ..Options::default()
    };
    router(Shared::new(Arc::new(node)), options, ([127, 0, 0, 1], 8332).into())
});

fuzz_target!(|body: &[u8]| {
    let request = Request::builder()
        .method(Method::POST)
        .uri("/")
        .header(header::HOST, "localhost")
        // u:p
        .header(header::AUTHORIZATION, "Basic dTpw")
        .body(Body::from(body.to_vec()))
        .expect("a request of our own");
    let reply = RUNTIME.block_on(async {
        let response = ROUTER
            .clone()
            .oneshot(request)
            .await
            .expect("the router always answers");
        assert_ne!(response.status(), 401, "the password is right");
        to_bytes(response.into_body(), usize::MAX)
            .await
            .expect("a body in memory")
    });
    // A panic in a method would be told as an internal error, but libFuzzer sees it first.
    assert!(reply.is_empty() || reply.ends_with(b"\n"));
});
