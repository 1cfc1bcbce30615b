//! Why a header, block or transaction is not valid: the same short reasons that Bitcoin Core gives, so that miners
//! and tools which match on them keep working.

use std::borrow::Cow;
use std::fmt;

/// A broken rule. The peer that sent the object is at fault, never this node or its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// What kind of rule was broken, which decides what happens to the sender and to the block's record.
    pub kind: RejectKind,
    /// Bitcoin Core's reject string, for example `bad-txnmrklroot`.
    pub reason: Cow<'static, str>,
    /// More words for a log or a person; no program should match on them.
    pub detail: String,
}

/// The kinds of broken rules. They differ in what the receiver should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectKind {
    /// A consensus rule about the content of a block or transaction: invalid for ever.
    Consensus,
    /// A header that no context can make valid: proof of work, difficulty, version, or a time before the median.
    InvalidHeader,
    /// The body does not belong to the header (merkle root, witness commitment). The header may still be valid with
    /// another body, so its hash must not be remembered as invalid.
    Mutated,
    /// More than two hours ahead of the clock: it may become valid later.
    TimeFuture,
    /// The header's parent is not known.
    MissingParent,
    /// The header builds on a block known to be invalid.
    InvalidParent,
    /// The block was found invalid earlier.
    KnownInvalid,
    /// A chain of headers with too little work to be worth keeping.
    LowWork,
    /// An input is unknown or spent. Within a block that is a consensus failure; alone, a parent may be missing.
    MissingInputs,
    /// Coinbase spent too early, or a lock time or sequence lock not reached: valid later.
    Premature,
}

impl RejectKind {
    /// True when a block with this failure stays invalid whatever else arrives, so that its hash may be remembered
    /// as invalid. The other failures depend on the body that was sent, on the clock or on what is known.
    pub fn is_permanent_for_block(self) -> bool {
        match self {
            Self::Consensus
            | Self::InvalidHeader
            | Self::InvalidParent
            | Self::KnownInvalid
            | Self::MissingInputs
            | Self::Premature => true,
            Self::Mutated | Self::TimeFuture | Self::MissingParent | Self::LowWork => false,
        }
    }
}

impl Reject {
    /// A reject of `kind` with Core's `reason` and free words.
    pub fn new(kind: RejectKind, reason: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
            detail: detail.into(),
        }
    }

    /// A broken consensus rule.
    pub fn consensus(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::new(RejectKind::Consensus, reason, detail)
    }

    /// A header that can never be valid.
    pub fn header(reason: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(RejectKind::InvalidHeader, reason, detail)
    }

    /// A body that does not belong to its header.
    pub fn mutated(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::new(RejectKind::Mutated, reason, detail)
    }

    /// An input of `what` that is unknown or already spent.
    pub fn missing_inputs(what: impl Into<String>) -> Self {
        Self::new(RejectKind::MissingInputs, "bad-txns-inputs-missingorspent", what)
    }

    /// The block was found invalid earlier and the reason was not kept.
    pub fn known_invalid(detail: impl Into<String>) -> Self {
        Self::new(RejectKind::KnownInvalid, "duplicate-invalid", detail)
    }

    /// The parent is invalid.
    pub fn invalid_parent(detail: impl Into<String>) -> Self {
        Self::new(RejectKind::InvalidParent, "bad-prevblk", detail)
    }

    /// The parent is unknown.
    pub fn missing_parent(detail: impl Into<String>) -> Self {
        Self::new(RejectKind::MissingParent, "prev-blk-not-found", detail)
    }

    /// The chain of headers has too little work.
    pub fn low_work(detail: impl Into<String>) -> Self {
        Self::new(RejectKind::LowWork, "too-little-chainwork", detail)
    }

    /// The same failure as part of a block: whatever is wrong with one transaction breaks the block for ever.
    pub fn in_block(mut self, place: impl fmt::Display) -> Self {
        self.kind = RejectKind::Consensus;
        self.detail = if self.detail.is_empty() {
            format!("in {place}")
        } else {
            format!("{} in {place}", self.detail)
        };
        self
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}, {}", self.reason, self.detail)
        }
    }
}

impl std::error::Error for Reject {}

/// Satoshi as bitcoins, as the texts of Core's rejects have them: at least two decimals, and none that is needless.
pub fn money(satoshi: i64) -> String {
    let sign = if satoshi < 0 { "-" } else { "" };
    let (whole, part) = (
        satoshi.unsigned_abs() / 100_000_000,
        satoshi.unsigned_abs() % 100_000_000,
    );
    let part = format!("{part:08}");
    let (cents, rest) = part.split_at(2);
    format!("{sign}{whole}.{cents}{}", rest.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutated_body_never_condemns_its_header() {
        assert!(!Reject::mutated("bad-txnmrklroot", "").kind.is_permanent_for_block());
        assert!(Reject::consensus("bad-cb-amount", "").kind.is_permanent_for_block());
        assert!(!RejectKind::TimeFuture.is_permanent_for_block());
    }

    #[test]
    fn a_transaction_failure_becomes_a_consensus_failure_of_its_block() {
        let reject = Reject::missing_inputs("input 0").in_block("transaction abc");
        assert_eq!(reject.kind, RejectKind::Consensus);
        assert_eq!(
            reject.to_string(),
            "bad-txns-inputs-missingorspent, input 0 in transaction abc"
        );
        assert_eq!(Reject::consensus("bad-cb-amount", "").to_string(), "bad-cb-amount");
    }

    #[test]
    fn amounts_are_written_as_core_writes_them() {
        assert_eq!(money(0), "0.00");
        assert_eq!(money(1_000), "0.00001");
        assert_eq!(money(150_000_000), "1.50");
        assert_eq!(money(-123_456_789), "-1.23456789");
    }
}
