//! What a transaction must look like, before its coins are known.

use bitcoin::Transaction;

use super::dust;
use super::output::{Form, form};
use crate::{Config, PoolReject};

/// Versions that are passed on.
const VERSIONS: std::ops::RangeInclusive<i32> = 1..=3;
/// Largest weight.
const MAX_WEIGHT: u64 = 400_000;
/// Longest input script: a 15-of-15 pay-to-script-hash multisignature fits.
const MAX_SCRIPT_SIG: usize = 1650;
/// Smallest size without witnesses: 64 bytes could pose as an inner node of a merkle tree.
const MIN_BASE_SIZE: usize = 65;
/// Most keys of a bare multisignature.
const MAX_BARE_KEYS: usize = 3;

/// Checks the form of a transaction.
pub(crate) fn check(tx: &Transaction, config: &Config) -> Result<(), PoolReject> {
    let reject = |reason| Err(PoolReject::policy(reason, ""));
    if !VERSIONS.contains(&tx.version.0) {
        return reject("version");
    }
    if tx.weight().to_wu() > MAX_WEIGHT {
        return reject("tx-size");
    }
    for input in &tx.input {
        if input.script_sig.len() > MAX_SCRIPT_SIG {
            return reject("scriptsig-size");
        }
        if !input.script_sig.is_push_only() {
            return reject("scriptsig-not-pushonly");
        }
    }
    let mut data_left = config.max_datacarrier_bytes;
    for output in &tx.output {
        match form(&output.script_pubkey) {
            Form::Unknown => return reject("scriptpubkey"),
            Form::Multisig(_, keys) if keys > MAX_BARE_KEYS => return reject("scriptpubkey"),
            Form::Multisig(..) if !config.permit_bare_multisig => return reject("bare-multisig"),
            Form::Data => match data_left.checked_sub(output.script_pubkey.len()) {
                Some(left) => data_left = left,
                None => return reject("datacarrier"),
            },
            _ => {}
        }
    }
    if dust::outputs(tx, config.dust_feerate).count() > dust::MAX_DUST_OUTPUTS {
        return reject("dust");
    }
    Ok(())
}

/// The least size holds even where unusual forms are let in.
pub(crate) fn check_min_size(tx: &Transaction) -> Result<(), PoolReject> {
    if tx.base_size() < MIN_BASE_SIZE {
        return Err(PoolReject::policy("tx-size-small", ""));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Txid, WPubkeyHash, Witness};

    fn tx() -> Transaction {
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::new(Txid::from_byte_array([1; 32]), 0),
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value: Amount::from_sat(1000),
                script_pubkey: ScriptBuf::new_p2wpkh(&WPubkeyHash::all_zeros()),
            }],
        }
    }

    fn broken(change: impl FnOnce(&mut Transaction)) -> String {
        let mut tx = tx();
        change(&mut tx);
        check(&tx, &Config::default()).unwrap_err().reason.into_owned()
    }

    fn data(length: usize) -> TxOut {
        let mut script = vec![0x6a; 1];
        script.extend(vec![0x51; length - 1]);
        TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes(script),
        }
    }

    #[test]
    fn each_reason() {
        check(&tx(), &Config::default()).unwrap();
        for version in [0, 4, -1] {
            assert_eq!(broken(|tx| tx.version = Version(version)), "version");
        }
        assert_eq!(broken(|tx| tx.input[0].witness.push(vec![0; 400_000])), "tx-size");
        assert_eq!(
            broken(|tx| tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0; 1651])),
            "scriptsig-size"
        );
        assert_eq!(
            broken(|tx| tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0x61])),
            "scriptsig-not-pushonly"
        );
        assert_eq!(
            broken(|tx| tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51])),
            "scriptpubkey"
        );
        assert_eq!(
            broken(|tx| tx.output.push(data(99_990))),
            "tx-size",
            "the weight bounds data first"
        );
        assert_eq!(
            broken(|tx| {
                tx.output[0].value = Amount::from_sat(293);
                tx.output.push(tx.output[0].clone());
            }),
            "dust"
        );
    }

    #[test]
    fn one_dust_output_and_small_data_pass_here() {
        let mut one = tx();
        one.output[0].value = Amount::from_sat(293);
        check(&one, &Config::default()).unwrap();
        let mut several = tx();
        several.output.extend([data(40), data(43)]);
        check(&several, &Config::default()).unwrap();
        let narrow = Config {
            max_datacarrier_bytes: 82,
            ..Config::default()
        };
        assert_eq!(
            check(&several, &narrow).unwrap_err().reason,
            "datacarrier",
            "the limit is for all together"
        );
    }

    #[test]
    fn the_least_size() {
        let mut small = tx();
        small.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 4]);
        assert_eq!(small.base_size(), 64);
        assert_eq!(check_min_size(&small).unwrap_err().reason, "tx-size-small");
        small.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 5]);
        check_min_size(&small).unwrap();
    }
}
