//! Policy: which unconfirmed transactions this node keeps, passes on and mines. Nothing here decides what is valid in
//! a block; that is `dunlin-chain`.
//!
//! [`Pool`] holds the transactions as clusters of relatives, each cut into chunks by fee rate, as Bitcoin Core 31
//! does: the best chunk is mined first, the worst is evicted first, and a replacement must improve the whole. Limits,
//! reasons and constants are Core's defaults. Scripts are checked with the consensus flags only, because the kernel
//! takes no others: a transaction that Core's additional script policy would refuse (a high S value, say) gets in here.

mod accept;
mod blocks;
mod change;
mod config;
mod diagram;
mod dump;
mod entry;
mod estimate;
mod feerate;
mod floor;
mod graph;
mod limits;
mod linearize;
mod package;
mod policy;
mod pool;
mod priority;
mod reject;
mod replace;
mod returned;
mod template;

pub use change::Change;
pub use config::Config;
pub use dump::{DumpError, DumpedTx, ImportOptions, Imported, import, save};
pub use entry::Entry;
pub use estimate::{Estimate, EstimateFileError, Estimator};
pub use feerate::FeeRate;
use feerate::Ratio;
pub use package::{
    MAX_PACKAGE_COUNT, PackageError, PackageErrorKind, PackageOutcome, PackageTx, is_child_with_parents_tree,
};
pub use pool::{Accepted, Info, Pool};
pub use priority::Priority;
pub use reject::{PoolReject, RejectKind, RejectKind as PoolRejectKind};
pub use template::{RESERVED_SIGOPS, RESERVED_WEIGHT, Template, TemplateError, TemplateTx};
