//! Why a transaction did not get into the pool, with Bitcoin Core's reason strings.

use std::borrow::Cow;
use std::fmt;

use bitcoin::OutPoint;
use dunlin_chain::{Reject, StoreError};

/// What the caller should make of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RejectKind {
    /// These inputs are unknown or spent: a parent may still come.
    MissingInputs(Vec<OutPoint>),
    /// Valid perhaps, but not wanted here or not yet.
    Policy,
    /// It pays too little by itself; with a child that pays for both it may get in.
    Reconsiderable,
    /// Invalid by the rules of the chain.
    Consensus,
    /// The transaction is here or confirmed already.
    AlreadyKnown,
    /// Our own disk failed; nothing is said about the transaction.
    Store,
}

impl RejectKind {
    /// The transaction is in the pool or the chain already.
    pub fn is_already_known(&self) -> bool {
        matches!(self, Self::AlreadyKnown)
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolReject {
    /// Core's reject string, for example `min relay fee not met`.
    pub reason: Cow<'static, str>,
    /// What to make of it.
    pub kind: RejectKind,
    /// More words for a person.
    pub detail: String,
}

impl PoolReject {
    pub(crate) fn policy(reason: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            kind: RejectKind::Policy,
            detail: detail.into(),
        }
    }

    pub(crate) fn reconsiderable(reason: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            kind: RejectKind::Reconsiderable,
            detail: detail.into(),
        }
    }

    pub(crate) fn consensus(reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            kind: RejectKind::Consensus,
            detail: detail.into(),
        }
    }

    pub(crate) fn known(reason: &'static str) -> Self {
        Self {
            reason: reason.into(),
            kind: RejectKind::AlreadyKnown,
            detail: String::new(),
        }
    }

    pub(crate) fn missing(outpoints: Vec<OutPoint>) -> Self {
        Self {
            reason: "bad-txns-inputs-missingorspent".into(),
            kind: RejectKind::MissingInputs(outpoints),
            detail: String::new(),
        }
    }
}

impl From<StoreError> for PoolReject {
    fn from(error: StoreError) -> Self {
        Self {
            reason: "internal error".into(),
            kind: RejectKind::Store,
            detail: error.to_string(),
        }
    }
}

impl From<Reject> for PoolReject {
    fn from(reject: Reject) -> Self {
        let kind = match reject.kind {
            dunlin_chain::RejectKind::Premature => RejectKind::Policy,
            dunlin_chain::RejectKind::MissingInputs => RejectKind::MissingInputs(Vec::new()),
            _ => RejectKind::Consensus,
        };
        Self {
            reason: reject.reason,
            kind,
            detail: reject.detail,
        }
    }
}

impl fmt::Display for PoolReject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}, {}", self.reason, self.detail)
        }
    }
}

impl std::error::Error for PoolReject {}
