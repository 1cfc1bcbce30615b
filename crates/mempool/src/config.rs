//! What an operator may set.

use crate::FeeRate;

/// Limits of a pool; the defaults are Bitcoin Core's.
#[derive(Clone, Debug)]
pub struct Config {
    /// Memory that the pool may use, in bytes.
    pub max_bytes: u64,
    /// The least fee rate that gets in while there is room.
    pub min_relay_feerate: FeeRate,
    /// How much more a replacement must pay for its own size, and the step by which the floor of a full pool rises.
    pub incremental_feerate: FeeRate,
    /// Outputs worth less than their spending costs at this rate are dust.
    pub dust_feerate: FeeRate,
    /// The least fee rate of a chunk that is mined.
    pub block_min_feerate: FeeRate,
    /// Seconds after which a transaction that was not mined is forgotten.
    pub expiry: u64,
    /// Most transactions in one cluster; never above 64.
    pub cluster_count: usize,
    /// Most weight in one cluster.
    pub cluster_weight: u64,
    /// Bytes that all OP_RETURN scripts of one transaction may have together.
    pub max_datacarrier_bytes: usize,
    /// Accept a bare multisignature output.
    pub permit_bare_multisig: bool,
    /// Refuse what is valid but not of a usual form.
    pub require_standard: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_bytes: 300_000_000,
            min_relay_feerate: FeeRate::from_sat_per_kvb(100),
            incremental_feerate: FeeRate::from_sat_per_kvb(100),
            dust_feerate: FeeRate::from_sat_per_kvb(3000),
            block_min_feerate: FeeRate::from_sat_per_kvb(1),
            expiry: 336 * 60 * 60,
            cluster_count: 64,
            cluster_weight: 101_000 * 4,
            max_datacarrier_bytes: 100_000,
            permit_bare_multisig: true,
            require_standard: true,
        }
    }
}
