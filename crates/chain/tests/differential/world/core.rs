//! Bitcoin Core's engine, with the reasons that it gives in its log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::BlockHash;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoinkernel::log::LogCategory;
use bitcoinkernel::notifications::types::BlockValidationResult;
use bitcoinkernel::prelude::*;
use bitcoinkernel::state::chainstate::ProcessBlockHeaderResult;
use bitcoinkernel::{
    Block, BlockHeader, BlockValidationStateRef, ChainType, ChainstateManager, ChainstateManagerBuilder, Context,
    ContextBuilder, Log, Logger, ProcessBlockResult, ValidationMode,
};

use super::regtest::Made;

/// Why something was refused: the kind of fault, and Core's reason string.
pub type Fault = (BlockValidationResult, String);

/// What Core said since it was last asked.
#[derive(Default)]
struct Heard {
    /// The last reason in the log.
    reason: String,
    /// What became of each block that was looked at.
    checked: BTreeMap<[u8; 32], Option<Fault>>,
}

/// Keeps the reasons of Core's log.
struct Listener(Arc<Mutex<Heard>>);

impl Log for Listener {
    fn log(&self, message: &str) {
        let message = message.trim_end();
        let found = if let Some((_, text)) = message.split_once("Block validation error: ") {
            Some(text)
        } else if let Some((_, text)) = message.split_once("FAILED (") {
            text.strip_suffix(')')
        } else if let Some((_, text)) = message.split_once("CheckBlockHeader: ") {
            text.split_once(", ").map(|(_, reason)| reason)
        } else {
            None
        };
        if let Some(text) = found {
            // The detail follows after a comma, the name of a script error in brackets.
            let reason = text.split(", ").next().unwrap_or(text);
            let reason = reason.split(" (").next().unwrap_or(reason);
            self.0.lock().unwrap().reason = reason.to_owned();
        }
    }
}

/// Core's log is one for the whole process: who listens to it must be alone.
static ALONE: Mutex<()> = Mutex::new(());

/// Core's engine on a new regtest chain. There is one at a time in a process.
pub struct Core {
    pub manager: ChainstateManager,
    heard: Arc<Mutex<Heard>>,
    _context: Context,
    _logger: Logger,
    _dir: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Core {
    pub fn new() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = Arc::<Mutex<Heard>>::default();
        let logger = Logger::new(Listener(Arc::clone(&heard))).unwrap();
        logger.set_level_category(LogCategory::Validation, bitcoinkernel::LogLevel::Debug);
        logger.enable_category(LogCategory::Validation);
        let listening = Arc::clone(&heard);
        let context = ContextBuilder::new()
            .chain_type(ChainType::Regtest)
            .with_block_checked_validation(move |block: Block, state: BlockValidationStateRef<'_>| {
                let mut heard = listening.lock().unwrap();
                let fault = (state.mode() != ValidationMode::Valid).then(|| (state.result(), heard.reason.clone()));
                heard.checked.insert(block.hash().to_bytes(), fault);
            })
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let manager = ChainstateManagerBuilder::new(&context, &path("data"), &path("blocks"))
            .unwrap()
            .block_tree_db_in_memory(true)
            .chainstate_db_in_memory(true)
            .worker_threads(1)
            .build()
            .unwrap();
        manager.import_blocks().unwrap();
        Self {
            manager,
            heard,
            _context: context,
            _logger: logger,
            _dir: dir,
            _alone: alone,
        }
    }

    /// `None` when the block is taken (perhaps without being connected yet), else why not; and what turned out to be
    /// wrong with other blocks, stored earlier.
    pub fn block(&self, made: &Made) -> (Option<Fault>, BTreeMap<BlockHash, Fault>) {
        *self.heard.lock().unwrap() = Heard::default();
        let result = self.manager.process_block(&Block::new(&made.block.raw).unwrap());
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        let mut fault = None;
        let mut others = BTreeMap::new();
        for (hash, found) in heard.checked {
            let hash = BlockHash::from_byte_array(hash);
            match found {
                Some(found) if hash == made.place.hash => fault = Some(found),
                Some(found) => drop(others.insert(hash, found)),
                None => {}
            }
        }
        if result == ProcessBlockResult::Rejected {
            // The reason for what is refused before it is stored comes last in the log.
            let (kind, _) = fault.expect("refused without a kind of fault");
            fault = Some((kind, heard.reason));
        }
        (fault, others)
    }

    /// [`Core::block`] for a header alone.
    pub fn header(&self, made: &Made) -> Option<Fault> {
        self.heard.lock().unwrap().reason.clear();
        let header = BlockHeader::new(&serialize(made.block.header())).unwrap();
        match self.manager.process_block_header(&header).unwrap() {
            ProcessBlockHeaderResult::Valid => None,
            ProcessBlockHeaderResult::Invalid(state) => {
                let kind = state.result();
                let reason = match kind {
                    BlockValidationResult::MissingPrev => String::from("prev-blk-not-found"),
                    BlockValidationResult::InvalidPrev => String::from("bad-prevblk"),
                    BlockValidationResult::CachedInvalid => String::from("duplicate-invalid"),
                    _ => self.heard.lock().unwrap().reason.clone(),
                };
                Some((kind, reason))
            }
        }
    }

    pub fn tip(&self) -> BlockHash {
        BlockHash::from_byte_array(self.manager.active_chain().tip().block_hash().to_bytes())
    }
}
