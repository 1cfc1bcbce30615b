//! Compact block filters for light clients (BIP 157), read from the index of filters.
//!
//! They are offered once the index has reached the tip. Whoever asks for what BIP 157 forbids, or asks a node that
//! offers none, is disconnected.

use bitcoin::BlockHash;
use bitcoin::bip158::FilterHeader;
use bitcoin::hashes::Hash;
use dunlin_chain::indexes::{FilterHeaders, FilterIndex, IndexKind, Indexes};
use dunlin_chain::{StoreError, View};
use dunlin_peer::{CloseReason, LinkId};

use crate::interface::{Done, Job};
use crate::node::Node;
use crate::serve::may_have;
use crate::wire::{BASIC_FILTER, FilterAnswer, FilterQuery, FilterRequest, Message, services};

/// Most filters that one request asks for, BIP 157.
const MAX_FILTERS: u32 = 1_000;
/// Most filter hashes that one request asks for, BIP 157.
const MAX_HASHES: u32 = 2_000;
/// Blocks from one checkpoint to the next, BIP 157.
const CHECKPOINT_INTERVAL: u32 = 1_000;
/// A request counts as one job for each so many filters, because its answers wait in memory.
const FILTERS_PER_JOB: usize = 16;

/// Whether filters can be offered: their index has reached the tip.
pub(crate) fn are_ready(indexes: Option<&Indexes>) -> bool {
    let progress = indexes.and_then(|indexes| indexes.progress_of(IndexKind::Filter));
    progress.is_some_and(|progress| progress.synced)
}

/// A question for filters came.
pub(crate) fn on_request(node: &mut Node, link: LinkId, ask: FilterRequest) {
    if ask.kind != BASIC_FILTER || node.services() & services::COMPACT_FILTERS == 0 {
        return node.close(link, CloseReason::fault("asks for block filters that we do not offer"));
    }
    let stop = node.view.entry(&ask.stop).filter(|stop| may_have(node, stop));
    let Some(stop) = stop else {
        return node.close(
            link,
            CloseReason::fault("asks for filters of a block that we do not offer"),
        );
    };
    let most = match ask.query {
        FilterQuery::Filters => MAX_FILTERS,
        FilterQuery::Headers => MAX_HASHES,
        FilterQuery::Checkpoints => u32::MAX,
    };
    let Some(distance) = stop.height.checked_sub(ask.start).filter(|distance| *distance < most) else {
        return node.close(
            link,
            CloseReason::fault("asks for too many filters, or for less than none"),
        );
    };
    let weight = match ask.query {
        // At most a thousand.
        FilterQuery::Filters => 1 + distance as usize / FILTERS_PER_JOB,
        FilterQuery::Headers | FilterQuery::Checkpoints => 1,
    };
    node.peer_jobs(link, weight, Job::ReadFilters { link, ask, weight });
}

/// The filters were read.
pub(crate) fn on_read(node: &mut Node, link: LinkId, weight: usize, answers: Vec<FilterAnswer>) {
    node.peer_jobs_done(link, weight);
    for answer in answers {
        node.send(link, Message::Filters(answer));
    }
}

/// Carries out a [`Job::ReadFilters`], which needs nothing but the chain's view and its indexes; `None` for any other
/// job. What cannot be read is not answered, as Core does not.
pub fn read_filters(view: &View, indexes: &Indexes, job: &Job) -> Option<Done> {
    let Job::ReadFilters { link, ask, weight } = job else {
        return None;
    };
    let answers = indexes.filter().map(|index| answers(view, index, ask));
    let answers = answers.and_then(|found| {
        found.unwrap_or_else(|error| {
            tracing::error!("block filters cannot be read: {error}");
            None
        })
    });
    Some(Done::FiltersRead {
        link: *link,
        weight: *weight,
        answers: answers.unwrap_or_default(),
    })
}

fn answers(view: &View, index: &FilterIndex, ask: &FilterRequest) -> Result<Option<Vec<FilterAnswer>>, StoreError> {
    let stop = ask.stop;
    let Some(last) = view.entry(&stop) else { return Ok(None) };
    let headers = |height: u32| -> Result<Option<FilterHeaders>, StoreError> {
        match view.ancestor(&stop, height) {
            Some(hash) => index.headers(height, &hash),
            None => Ok(None),
        }
    };
    match ask.query {
        FilterQuery::Filters => {
            let mut found = Vec::new();
            for (height, block) in blocks(view, &stop, ask.start, last.height) {
                let Some(filter) = index.filter(height, &block)? else {
                    return Ok(None);
                };
                found.push(FilterAnswer::Filter { block, filter });
            }
            Ok(Some(found))
        }
        FilterQuery::Headers => {
            let previous = match ask.start.checked_sub(1) {
                None => FilterHeader::all_zeros(),
                Some(before) => match headers(before)? {
                    Some(found) => found.header,
                    None => return Ok(None),
                },
            };
            let mut hashes = Vec::new();
            for (height, block) in blocks(view, &stop, ask.start, last.height) {
                let Some(found) = index.headers(height, &block)? else {
                    return Ok(None);
                };
                hashes.push(found.hash);
            }
            Ok(Some(vec![FilterAnswer::Headers { stop, previous, hashes }]))
        }
        FilterQuery::Checkpoints => {
            let mut found = Vec::new();
            for number in 1..=last.height / CHECKPOINT_INTERVAL {
                let Some(at) = headers(number.saturating_mul(CHECKPOINT_INTERVAL))? else {
                    return Ok(None);
                };
                found.push(at.header);
            }
            Ok(Some(vec![FilterAnswer::Checkpoints { stop, headers: found }]))
        }
    }
}

/// The blocks of the chain that ends with `stop`, from a height on to its own.
fn blocks(view: &View, stop: &BlockHash, from: u32, to: u32) -> Vec<(u32, BlockHash)> {
    let heights = from..=to;
    heights
        .filter_map(|height| Some((height, view.ancestor(stop, height)?)))
        .collect()
}
