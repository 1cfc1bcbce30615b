//! Policy: which unconfirmed transactions this node keeps, passes on and mines. Nothing here decides what is valid in
//! a block; that is `dunlin-chain`.
//!
//! [`Pool`] holds the transactions as clusters of relatives, each cut into chunks by fee rate, as Bitcoin Core 31
//! does: the best chunk is mined first, the worst is evicted first, and a replacement must improve the whole. Limits,
//! reasons and constants are Core's defaults. Scripts are checked with the consensus flags only, because the kernel
//! takes no others: a transaction that Core's additional script policy would refuse (a high S value, say) gets in here.

mod accept;
mod blocks;
mod config;
mod diagram;
mod entry;
mod feerate;
mod floor;
mod graph;
mod limits;
mod linearize;
mod policy;
mod pool;
mod reject;
mod replace;
mod template;

pub use config::Config;
pub use entry::Entry;
pub use feerate::FeeRate;
use feerate::Ratio;
pub use pool::{Accepted, Info, Pool};
pub use reject::{PoolReject, RejectKind, RejectKind as PoolRejectKind};
pub use template::{Template, TemplateError, TemplateTx};
