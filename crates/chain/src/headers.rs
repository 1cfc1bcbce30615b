//! Taking headers: what is checked before any is stored, and the work that a branch must have to be stored at all.

use bitcoin::block::Header;
use bitcoin::{BlockHash, Work};

use crate::engine::Chain;
use crate::tree::{NodeId, Tree};
use crate::{HeaderReject, HeadersAccepted, Params, Reject, View, rules};

/// Once the headers have the network's minimum work, a branch must come this close to the best header, in blocks.
const LOW_WORK_DEPTH: u32 = 144;

/// Headers off the best chain that are kept on a network without a minimum of work, where work costs nothing.
const MAX_SIDE_HEADERS: usize = 100_000;

/// The work that a new branch must end with. There is a floor once the headers known have the network's minimum of
/// work: what is still far below the best header then was made to fill our memory, or by somebody far behind. On a
/// network without a minimum it rises to the best header's work once many headers lie off the best chain.
fn work_floor(params: &Params, tree: &Tree) -> Option<Work> {
    let best = tree.node(tree.best_header());
    let minimum = params.minimum_chain_work;
    if minimum == Work::from_be_bytes([0; 32]) {
        let off = tree.len().saturating_sub(best.height as usize + 1);
        return (off >= MAX_SIDE_HEADERS).then_some(best.work);
    }
    if best.work < minimum {
        return None;
    }
    let near = tree.ancestor(tree.best_header(), best.height.saturating_sub(LOW_WORK_DEPTH));
    Some(tree.node(near).work.max(minimum))
}

impl View {
    /// The work that a stranger's branch must have before its headers are given to the chain: at least the network's
    /// minimum, and what [`Chain::accept_headers`] asks for.
    pub fn needed_work(&self) -> Work {
        let floor = work_floor(self.params(), &self.shared.tree());
        floor.unwrap_or(self.params().minimum_chain_work)
    }
}

impl Chain {
    /// Takes a batch of headers, each the child of the one before it. `now_unix` is the clock in seconds.
    ///
    /// Once the headers known have the network's pinned minimum of work, a branch that ends far below the best header
    /// is refused before anything of it is stored. Before that every branch with its proof of work done is stored: who
    /// takes headers from strangers has them show [`View::needed_work`] first. Networks without a minimum of work keep
    /// a bounded number of headers off the best chain, and then only take a branch with as much work as the best.
    ///
    /// # Errors
    /// [`HeaderReject`]; headers before the broken one may stay accepted.
    pub fn accept_headers(&mut self, now_unix: u64, headers: &[Header]) -> Result<HeadersAccepted, HeaderReject> {
        let hashes = self.check_headers_apart(headers)?;
        self.check_work(headers, &hashes)?;
        self.insert_headers(now_unix, headers, &hashes)
    }

    /// [`Chain::accept_headers`] for a piece of a branch whose end was shown to have [`View::needed_work`].
    ///
    /// # Errors
    /// [`HeaderReject`]; headers before the broken one may stay accepted.
    pub fn accept_proven_headers(
        &mut self,
        now_unix: u64,
        headers: &[Header],
    ) -> Result<HeadersAccepted, HeaderReject> {
        let hashes = self.check_headers_apart(headers)?;
        self.insert_headers(now_unix, headers, &hashes)
    }

    fn insert_headers(
        &mut self,
        now_unix: u64,
        headers: &[Header],
        hashes: &[BlockHash],
    ) -> Result<HeadersAccepted, HeaderReject> {
        let mut accepted = HeadersAccepted {
            new: 0,
            last: self.params().genesis_hash,
        };
        let mut outcome = Ok(());
        for (index, (header, hash)) in headers.iter().zip(hashes).enumerate() {
            match self.accept_header(now_unix, header, *hash) {
                Ok((_, new)) => {
                    accepted.new += usize::from(new);
                    accepted.last = *hash;
                }
                Err(reject) => {
                    outcome = Err(HeaderReject::Invalid {
                        index,
                        hash: *hash,
                        reject,
                    });
                    break;
                }
            }
        }
        self.write_index()?;
        self.choose_swift_form();
        outcome.map(|()| accepted)
    }

    /// What can be said of a batch of headers without the chain; returns their hashes.
    fn check_headers_apart(&self, headers: &[Header]) -> Result<Vec<BlockHash>, HeaderReject> {
        let hashes: Vec<BlockHash> = headers.iter().map(Header::block_hash).collect();
        for (index, pair) in headers.windows(2).enumerate() {
            if pair[1].prev_blockhash != hashes[index] {
                return Err(HeaderReject::NotContinuous { index: index + 1 });
            }
        }
        for (index, (header, hash)) in headers.iter().zip(&hashes).enumerate() {
            rules::check_header(self.params(), header).map_err(|reject| HeaderReject::Invalid {
                index,
                hash: *hash,
                reject,
            })?;
        }
        Ok(hashes)
    }

    /// Whether the branch has enough work to be stored at all; its proof of work was checked, so what its headers
    /// claim counts.
    fn check_work(&self, headers: &[Header], hashes: &[BlockHash]) -> Result<(), HeaderReject> {
        let Some(first) = headers.first() else {
            return Ok(());
        };
        let tree = self.shared.tree();
        let unknown = headers
            .iter()
            .zip(hashes)
            .position(|(_, hash)| tree.find(hash).is_none());
        let Some(unknown) = unknown.and_then(|index| headers.get(index..)) else {
            return Ok(());
        };
        let Some(parent) = unknown.first().and_then(|header| tree.find(&header.prev_blockhash)) else {
            return Err(HeaderReject::Orphan(first.prev_blockhash));
        };
        let start = tree.node(parent).work;
        let work = unknown
            .iter()
            .fold(start, |sum, header| sum + rules::work_of(header.bits));
        match self.work_floor(&tree) {
            Some(floor) if work < floor => Err(HeaderReject::LowWork),
            _ => Ok(()),
        }
    }

    /// [`work_floor`] of this chain.
    pub(crate) fn work_floor(&self, tree: &Tree) -> Option<Work> {
        work_floor(self.params(), tree)
    }

    /// Checks one header in its context and adds it to the tree; says whether it is new.
    pub(crate) fn accept_header(
        &mut self,
        now_unix: u64,
        header: &Header,
        hash: BlockHash,
    ) -> Result<(NodeId, bool), Reject> {
        let parent = {
            let tree = self.shared.tree();
            if let Some(id) = tree.find(&hash) {
                if tree.node(id).invalid {
                    return Err(Reject::known_invalid(format!("block {hash}")));
                }
                return Ok((id, false));
            }
            rules::check_header(&self.shared.params, header)?;
            let parent = tree
                .find(&header.prev_blockhash)
                .ok_or_else(|| Reject::missing_parent(format!("block {}", header.prev_blockhash)))?;
            if tree.node(parent).invalid {
                return Err(Reject::invalid_parent(format!("block {}", header.prev_blockhash)));
            }
            rules::contextual_check_header(&self.shared.params, header, &tree.branch(parent), now_unix)?;
            parent
        };
        let id = self.shared.tree_mut().insert(parent, *header, hash);
        self.dirty.insert(id);
        Ok((id, true))
    }
}
