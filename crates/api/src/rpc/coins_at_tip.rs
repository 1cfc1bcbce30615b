//! The output that an outpoint names, as the chain's tip and the memory pool know it.

use bitcoin::{OutPoint, TxOut};
use dunlin_chain::StoreError;

use super::with_pool;
use crate::backend::BitcoinBackend;
use crate::psbt::output_of;

/// The output, of a transaction in the pool or unspent in the chain. Whether the pool spends it does not matter.
pub(crate) fn unspent(bitcoin: &dyn BitcoinBackend, outpoint: &OutPoint) -> Result<Option<TxOut>, StoreError> {
    if let Some(tx) = with_pool(bitcoin, |pool| pool.get(&outpoint.txid)) {
        return Ok(output_of(&tx, outpoint).cloned());
    }
    Ok(bitcoin.view().coin(outpoint)?.map(|coin| coin.output))
}
