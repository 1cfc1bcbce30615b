//! BIP 30: a block may not repeat a transaction that still has unspent outputs; and the four blocks of the main chain
//! around the two repetitions that happened before the rule.

use bitcoin::{BlockHash, Txid};

use crate::{Params, Reject};

/// From this height on a coinbase of the time before BIP 34 could be repeated with a valid height prefix, so the check
/// is made again although BIP 34 is active.
const BIP34_IMPLIES_BIP30_LIMIT: u32 = 1_983_702;

/// The two blocks whose coinbase repeats an earlier one: height and hash.
const REPEATS: [(u32, &str); 2] = [
    (
        91_842,
        "00000000000a4d0a398161ffc163c503763b1f4360639393e0e4c8e300e0caec",
    ),
    (
        91_880,
        "00000000000743f190a18c5577a3c2d2a1f610ae9601ac046a38084ccb7cd721",
    ),
];

/// The two blocks whose coinbase was overwritten by those.
const OVERWRITTEN: [(u32, &str); 2] = [
    (
        91_722,
        "00000000000271a2dc26e7667f8419f2e15416dc6955e5a6c6cdf3f2574dd08e",
    ),
    (
        91_812,
        "00000000000af0aed4792b1acee3d966af36cf5def14935db8de83d6f9306f2f",
    ),
];

fn listed(list: &[(u32, &str)], height: u32, hash: &BlockHash) -> bool {
    list.iter().any(|(at, name)| *at == height && hash.to_string() == *name)
}

/// True for the two main-chain blocks that broke the rule before it existed.
pub fn is_repeat(height: u32, hash: &BlockHash) -> bool {
    listed(&REPEATS, height, hash)
}

/// True for the two main-chain blocks whose coinbase output is gone although nobody spent it: disconnecting them may
/// find it missing.
pub fn is_overwritten(height: u32, hash: &BlockHash) -> bool {
    listed(&OVERWRITTEN, height, hash)
}

/// Must the outputs of the block at `height` be looked up for repetition? `bip34_ancestor` is the hash of its ancestor
/// at the height where BIP 34 became active, if it is that high: on the known chain above that height the coinbase's
/// height prefix already rules repetitions out.
pub fn check_needed(params: &Params, height: u32, hash: &BlockHash, bip34_ancestor: Option<BlockHash>) -> bool {
    if height >= BIP34_IMPLIES_BIP30_LIMIT {
        return true;
    }
    let on_known_chain = params.bip34_hash.is_some() && bip34_ancestor == params.bip34_hash;
    !is_repeat(height, hash) && !on_known_chain
}

/// On a network with BIP 34 from its first block no valid block repeats a transaction: every coinbase begins with its
/// own height, so no two are equal, and whatever else repeats would have to spend the same coins again. There the
/// check is only needed to name the fault of a block that is refused anyway.
pub fn is_ruled_out(params: &Params) -> bool {
    params.bip34_height <= 1
}

/// The failure of a block whose transaction `txid` would overwrite an unspent output.
pub fn repeated(txid: &Txid) -> Reject {
    Reject::consensus("bad-txns-BIP30", format!("tried to overwrite transaction {txid}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Network;

    fn hash(text: &str) -> BlockHash {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_two_repeats_and_the_known_chain_are_spared() {
        let params = Params::new(Network::Mainnet);
        let other = hash("00000000000000000000000000000000000000000000000000000000000000aa");
        let known = Some(hash("000000000000024b89b42a942fe0d9fea3bb44ab7bd1b19115dd6a759c0808b8"));
        assert!(!check_needed(&params, 91_842, &hash(REPEATS[0].1), None));
        assert!(!check_needed(&params, 91_880, &hash(REPEATS[1].1), None));
        assert!(
            check_needed(&params, 91_880, &other, None),
            "another block at that height"
        );
        assert!(check_needed(&params, 91_722, &hash(OVERWRITTEN[0].1), None));
        assert!(check_needed(&params, 227_930, &other, None));
        assert!(!check_needed(&params, 300_000, &other, known));
        assert!(check_needed(&params, 300_000, &other, Some(other)), "another chain");
        assert!(!check_needed(&params, 1_983_701, &other, known));
        assert!(check_needed(&params, 1_983_702, &other, known));
        assert!(is_overwritten(91_722, &hash(OVERWRITTEN[0].1)));
        assert!(!is_overwritten(91_723, &hash(OVERWRITTEN[0].1)));
    }

    #[test]
    fn only_bip34_from_the_start_rules_repetitions_out() {
        let ruled_out = |network| is_ruled_out(&Params::new(network));
        assert!(!ruled_out(Network::Mainnet));
        assert!(ruled_out(Network::Testnet4) && ruled_out(Network::Signet) && ruled_out(Network::Regtest));
    }

    #[test]
    fn networks_without_a_known_bip34_block_always_check() {
        for network in [Network::Testnet4, Network::Signet, Network::Regtest] {
            let params = Params::new(network);
            let any = params.genesis.block_hash();
            assert!(check_needed(&params, 5, &any, Some(any)));
        }
    }
}
