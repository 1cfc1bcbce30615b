//! Serving the coins that blocks spent (BIP 455), from undo records.
//!
//! They are offered, by a feature (BIP 434), while the records of all blocks are kept. Whoever asks without having been
//! offered them is disconnected. How we ask for them is told in `blocks::claims`.

use bytes::Bytes;
use dunlin_chain::View;
use dunlin_peer::{CloseReason, LinkId};

use crate::interface::{Done, Job};
use crate::node::Node;
use crate::wire::{Feature, MAX_PAYLOAD, Message, SPENT_COINS_FEATURE, SpentCoins, SpentRequest};

/// The feature, unless we have not got what it promises.
pub(crate) fn feature(node: &Node) -> Option<Feature> {
    node.view.keeps_spent_coins().then(|| Feature {
        id: SPENT_COINS_FEATURE.as_bytes().to_vec(),
        data: vec![0],
    })
}

/// Whether a peer's feature says that it answers `getbspent`.
pub(crate) fn is_offer(feature: &Feature) -> bool {
    feature.id == SPENT_COINS_FEATURE.as_bytes() && feature.data == [0]
}

/// `getbspent` came.
pub(crate) fn on_request(node: &mut Node, link: LinkId, ask: SpentRequest) {
    let Some(peer) = node.ready(link) else { return };
    if !peer.offered_spent {
        let text = "asks for spent coins, which we did not offer";
        return node.close(link, CloseReason::fault(text));
    }
    // What is off the chain is not judged for good, or would tell what we have seen.
    if node.view.contains_in_active(&ask.block) {
        node.peer_job(link, Job::ReadSpent { link, ask });
    }
}

/// The coins were read.
pub(crate) fn on_read(node: &mut Node, link: LinkId, payload: Option<Bytes>) {
    node.peer_job_done(link);
    if let Some(payload) = payload {
        node.send(link, Message::RawSpent(payload));
    }
}

/// Carries out a [`Job::ReadSpent`], which needs nothing but the chain's view; `None` for any other job. What cannot be
/// read, or does not fit into a message, is not answered.
pub fn read_spent(view: &View, job: &Job) -> Option<Done> {
    let Job::ReadSpent { link, ask } = job else {
        return None;
    };
    let undo = view.undo(&ask.block).unwrap_or_else(|error| {
        tracing::error!(block = %ask.block, %error, "an undo record cannot be read");
        None
    });
    let payload = undo.map(|undo| SpentCoins::of(ask, undo).encode());
    Some(Done::SpentRead {
        link: *link,
        payload: payload.filter(|payload| payload.len() <= MAX_PAYLOAD).map(Bytes::from),
    })
}
