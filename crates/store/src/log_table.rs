//! [`Table`] as a log over [`Files`]: each batch is appended with its checksum, and now and then the log is written anew
//! without what is out of date.
//!
//! For tables that are read once, when the program starts, and then only written: of one key space, the large one,
//! nothing is kept in memory. The pairs of the others are, and they must be few.
//!
//! The log is a file `PREFIX-NUMBER`:
//!
//! | bytes | |
//! |---|---|
//! | 8 | XXH3 of the next 16 bytes |
//! | 8 + 8 | number of the file; how long it was when it was made |
//! | frames | one for each batch |
//!
//! A file counts once these 24 bytes are right: they are written last. Then the one before it is removed.
//!
//! | bytes | of a frame |
//! |---|---|
//! | 8 | XXH3 of the next 24 bytes |
//! | 8 + 8 | length of the records; XXH3 of them |
//! | 8 | up to which byte the file was durable when the frame was written |
//! | n | the records: space (1), length of the key (1), length of the value plus one (4; 0: removed), key, value |
//!
//! All numbers are little-endian. Beyond the durable part a frame that is not whole was lost with the power, and so is
//! all that follows. Within the durable part it is damage: it is left out. A batch that was to be
//! durable at once is rare and dear, so it is written twice over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use crate::mem::{self, Pairs};
use crate::{Batch, Files, Space, Step, StoreError, Table};

const FILE_HEAD: usize = 24;
const FRAME_HEAD: usize = 32;
const RECORD_HEAD: usize = 6;
/// Records written anew share frames of about this many bytes.
const FRAME_BYTES: usize = 64 << 10;
/// A log is written anew once it has grown to twice its length and this many bytes.
const SLACK: u64 = 32 << 20;

/// A table in a log.
pub struct LogTable {
    files: Arc<dyn Files>,
    prefix: String,
    bulk: Space,
    /// `None` until the first use.
    state: Mutex<Option<State>>,
}

struct State {
    number: u64,
    /// Length of the file when it was made.
    made: u64,
    /// Where the next frame goes.
    end: u64,
    /// What is known to be durable.
    durable: u64,
    /// The end of the file when all but the note about it was durable.
    noted: u64,
    /// What lies in the file may not be what was written: the next write makes a new one.
    suspect: bool,
    /// The pairs of all spaces but the large one.
    kept: Pairs,
    /// What was read to open the table, for the look at all of it that comes next.
    fresh: Option<(Vec<u8>, Layout)>,
}

impl State {
    /// Whether it is time for a new file.
    fn is_due(&self) -> bool {
        self.suspect || self.end > self.made.saturating_mul(2).saturating_add(SLACK)
    }
}

/// A record of a frame.
struct Record<'a> {
    space: Space,
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

/// Where the frames of a log are.
struct Layout {
    /// The records of each frame that is whole.
    frames: Vec<std::ops::Range<usize>>,
    end: usize,
    /// Whether some of the durable part is not whole.
    damaged: bool,
}

impl Layout {
    fn records<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = Record<'a>> {
        let whole = self.frames.iter().filter_map(|range| bytes.get(range.clone()));
        whole.flat_map(records)
    }
}

fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?))
}

fn sealed(numbers: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut out = xxh3_64(&body).to_le_bytes().to_vec();
    out.extend_from_slice(&body);
    out
}

/// Whether the first eight of `len` bytes are the checksum of the others.
fn is_sealed(bytes: &[u8], at: usize, len: usize) -> bool {
    let body = at
        .checked_add(8)
        .zip(at.checked_add(len))
        .and_then(|(from, to)| bytes.get(from..to));
    body.is_some_and(|body| number_at(bytes, at) == Some(xxh3_64(body)))
}

/// The records of the frame at `at` and what it says was durable; `None` when it is not whole.
fn frame_at(bytes: &[u8], at: usize) -> Option<(std::ops::Range<usize>, u64)> {
    if !is_sealed(bytes, at, FRAME_HEAD) {
        return None;
    }
    let from = at + FRAME_HEAD;
    let to = from.checked_add(usize::try_from(number_at(bytes, at + 8)?).ok()?)?;
    let whole = xxh3_64(bytes.get(from..to)?) == number_at(bytes, at + 16)?;
    whole.then_some((from..to, number_at(bytes, at + 24)?))
}

/// Finds the frames of a log.
fn frames(bytes: &[u8], made: u64) -> Layout {
    let mut found: Vec<(usize, std::ops::Range<usize>)> = Vec::new();
    let mut durable = made;
    let mut at = FILE_HEAD;
    while at < bytes.len() {
        match frame_at(bytes, at) {
            Some((records, known)) => {
                durable = durable.max(known.min(at as u64));
                found.push((at, records.clone()));
                at = records.end;
            }
            // Its length may be wrong: the next frame is looked for.
            None => at += 1,
        }
    }
    let mut layout = Layout {
        frames: Vec::with_capacity(found.len()),
        end: FILE_HEAD,
        damaged: false,
    };
    for (start, records) in found {
        if start != layout.end {
            layout.damaged |= (layout.end as u64) < durable;
            if start as u64 > durable {
                return layout;
            }
        }
        layout.end = records.end;
        layout.frames.push(records);
    }
    layout.damaged |= (layout.end as u64) < durable;
    layout
}

/// The beginning of a key as a number that sorts as it does.
fn first_bytes(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = key.len().min(8);
    bytes[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(bytes)
}

/// The records of a frame that is whole; ends early when they are none of ours.
fn records(mut rest: &[u8]) -> impl Iterator<Item = Record<'_>> {
    std::iter::from_fn(move || {
        let (head, after) = rest.split_first_chunk::<RECORD_HEAD>()?;
        let (key, after) = after.split_at_checked(usize::from(head[1]))?;
        let len = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
        let (value, after) = match len.checked_sub(1) {
            None => (None, after),
            Some(len) => {
                let (value, after) = after.split_at_checked(len as usize)?;
                (Some(value), after)
            }
        };
        rest = after;
        Some(Record {
            space: Space(head[0]),
            key,
            value,
        })
    })
}

fn put_record(out: &mut Vec<u8>, space: Space, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
    let long = || StoreError::corrupt("a record of no permitted length");
    let len = value.map_or(Some(0), |value| u32::try_from(value.len()).ok()?.checked_add(1));
    out.push(space.0);
    out.push(u8::try_from(key.len()).map_err(|_| long())?);
    out.extend_from_slice(&len.ok_or_else(long)?.to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value.unwrap_or_default());
    Ok(())
}

fn put_frame(out: &mut Vec<u8>, records: &[u8], durable: u64) {
    out.extend_from_slice(&sealed(&[records.len() as u64, xxh3_64(records), durable]));
    out.extend_from_slice(records);
}

impl LogTable {
    /// The table whose files begin with `prefix`. It is opened, or made when there is none, by its first use. Nothing of
    /// `bulk`, the large space, is kept in memory: a look at it reads the whole log.
    pub fn new(files: Arc<dyn Files>, prefix: &str, bulk: Space) -> Self {
        Self {
            files,
            prefix: prefix.to_owned(),
            bulk,
            state: Mutex::new(None),
        }
    }

    /// Works with the state of the open table.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> Result<T, StoreError>) -> Result<T, StoreError> {
        // A change of the state is the last step of whatever makes it: it is whole at every other.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = state.as_mut() {
            return work(state);
        }
        work(state.insert(self.open()?))
    }

    fn open(&self) -> Result<State, StoreError> {
        let mut logs = BTreeMap::new();
        for name in self.files.list()? {
            let number = name.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('-'));
            if let Some(number) = number.and_then(|text| text.parse().ok()) {
                logs.insert(number, name);
            }
        }
        let mut newest = None;
        for (number, name) in &logs {
            let head = match self.files.read_at(name, 0, FILE_HEAD) {
                Err(StoreError::Corrupt { .. }) => Vec::new(),
                head => head?,
            };
            if is_sealed(&head, 0, FILE_HEAD) && number_at(&head, 8) == Some(*number) {
                newest = Some((*number, number_at(&head, 16).unwrap_or(0)));
            }
        }
        // When none is right, a flipped bit is to blame, or the first was never made.
        let (number, made) = newest
            .or_else(|| logs.last_key_value().map(|(number, _)| (*number, 0)))
            .unwrap_or((0, 0));
        let mut state = State {
            number,
            made,
            end: 0,
            durable: 0,
            noted: 0,
            suspect: newest.is_none(),
            kept: Pairs::new(),
            fresh: None,
        };
        let bytes = match logs.get(&number) {
            Some(name) => self.read(name, self.files.len(name)?.unwrap_or(0))?,
            None => Vec::new(),
        };
        let layout = frames(&bytes, made);
        for record in layout.records(&bytes).filter(|record| record.space != self.bulk) {
            let key = (record.space, record.key.into());
            match record.value {
                Some(value) => state.kept.insert(key, value.into()),
                None => state.kept.remove(&key),
            };
        }
        state.end = layout.end as u64;
        state.suspect |= layout.end != bytes.len() || layout.damaged;
        if state.is_due() {
            self.write_anew(&mut state, &bytes, &layout)?;
        } else {
            state.fresh = Some((bytes, layout));
        }
        for (other, name) in &logs {
            if *other != state.number {
                self.files.remove(name)?;
            }
        }
        Ok(state)
    }

    fn name(&self, number: u64) -> String {
        format!("{}-{number}", self.prefix)
    }

    fn read(&self, name: &str, len: u64) -> Result<Vec<u8>, StoreError> {
        let len = usize::try_from(len).map_err(|_| StoreError::corrupt(name))?;
        self.files.read_at(name, 0, len)
    }

    /// Shows the newest pairs of the large space in the order of their keys.
    fn visit(&self, bytes: &[u8], layout: &Layout, visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) {
        // Most are told apart by their first bytes, which are at hand.
        let mut pairs: Vec<(u64, Record<'_>)> = layout
            .records(bytes)
            .filter(|record| record.space == self.bulk)
            .map(|record| (first_bytes(record.key), record))
            .collect();
        // Records of one key stay in the order in which they were written, and the last counts.
        pairs.sort_by(|one, other| one.0.cmp(&other.0).then_with(|| one.1.key.cmp(other.1.key)));
        for (index, (first, record)) in pairs.iter().enumerate() {
            let next = pairs.get(index + 1);
            let last = next.is_none_or(|(begins, next)| begins != first || next.key != record.key);
            if let (true, Some(value)) = (last, record.value)
                && visit(record.key, value) == Step::Stop
            {
                return;
            }
        }
    }

    /// Makes a new file when it is time.
    fn tidy(&self, state: &mut State) -> Result<(), StoreError> {
        if !state.is_due() {
            return Ok(());
        }
        let bytes = self.read(&self.name(state.number), state.end)?;
        self.write_anew(state, &bytes, &frames(&bytes, state.made))
    }

    /// Writes a new file with what is not out of date.
    fn write_anew(&self, state: &mut State, bytes: &[u8], layout: &Layout) -> Result<(), StoreError> {
        let number = state.number + 1;
        let name = self.name(number);
        let mut out = vec![0; FILE_HEAD];
        let mut few = Vec::new();
        for ((space, key), value) in &state.kept {
            put_record(&mut few, *space, key, Some(value))?;
        }
        // Twice, for the same reason as durable batches.
        put_frame(&mut out, &few, 0);
        put_frame(&mut out, &few, 0);
        let mut many = Vec::new();
        let mut fits = Ok(());
        self.visit(bytes, layout, &mut |key, value| {
            fits = put_record(&mut many, self.bulk, key, Some(value));
            if many.len() >= FRAME_BYTES {
                put_frame(&mut out, &many, 0);
                many.clear();
            }
            if fits.is_ok() { Step::Continue } else { Step::Stop }
        });
        fits?;
        put_frame(&mut out, &many, 0);
        let len = out.len() as u64;
        // What an earlier attempt left there is no part of it.
        self.files.remove(&name)?;
        self.files.write_at(&name, 0, &out)?;
        self.files.sync(&name)?;
        self.files.write_at(&name, 0, &sealed(&[number, len]))?;
        self.files.sync(&name)?;
        let former = std::mem::replace(&mut state.number, number);
        (state.made, state.end, state.durable, state.noted) = (len, len, len, len);
        (state.suspect, state.fresh) = (false, None);
        // One that stays is removed when the table is opened again.
        self.files.remove(&self.name(former))
    }

    /// Appends to the file; what is there of a write that failed is written over.
    fn append(&self, state: &mut State, frames: &[u8]) -> Result<(), StoreError> {
        state.fresh = None;
        self.files.write_at(&self.name(state.number), state.end, frames)?;
        state.end += frames.len() as u64;
        Ok(())
    }
}

impl Table for LogTable {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut found = None;
        self.scan(space, key, &mut |at, value| {
            found = (at == key).then(|| value.to_vec());
            Step::Stop
        })?;
        Ok(found)
    }

    fn write(&self, batch: Batch, durable: bool) -> Result<(), StoreError> {
        self.with(|state| {
            self.tidy(state)?;
            let mut body = Vec::new();
            let mut few = Batch::default();
            for (space, key, value) in batch.into_changes() {
                put_record(&mut body, space, &key, value.as_deref())?;
                match value {
                    _ if space == self.bulk => {}
                    Some(value) => few.put(space, key, value),
                    None => few.delete(space, key),
                }
            }
            let mut out = Vec::new();
            for _ in 0..if durable { 2 } else { 1 } {
                put_frame(&mut out, &body, state.durable);
            }
            self.append(state, &out)?;
            mem::apply(&mut state.kept, few);
            Ok(())
        })?;
        if durable { self.sync() } else { Ok(()) }
    }

    fn sync(&self) -> Result<(), StoreError> {
        let (number, end, noted) = self.with(|state| {
            if state.suspect {
                self.tidy(state)?;
            }
            Ok((state.number, state.end, state.noted))
        })?;
        if end == noted {
            return Ok(());
        }
        // Nobody waits for the disk who only wants to write.
        let synced = self.files.sync(&self.name(number));
        self.with(|state| {
            if state.number != number {
                // It was written anew meanwhile, and what counts now is durable.
                return Ok(());
            }
            if synced.is_err() {
                state.suspect = true;
                return synced;
            }
            state.durable = end;
            let nothing_since = state.end == end;
            let mut note = Vec::new();
            put_frame(&mut note, &[], state.durable);
            self.append(state, &note)?;
            if nothing_since {
                state.noted = state.end;
            }
            Ok(())
        })
    }

    fn size_hint(&self, space: Space) -> Result<u64, StoreError> {
        self.with(|state| Ok(if space == self.bulk { state.end } else { 0 }))
    }

    fn scan(&self, space: Space, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), StoreError> {
        self.with(|state| {
            if space != self.bulk {
                mem::scan(&state.kept, space, prefix, visit);
                return Ok(());
            }
            let (bytes, layout) = match state.fresh.take() {
                Some(fresh) => fresh,
                None => {
                    let bytes = self.read(&self.name(state.number), state.end)?;
                    let layout = frames(&bytes, state.made);
                    (bytes, layout)
                }
            };
            self.visit(&bytes, &layout, &mut |key, value| {
                if key.starts_with(prefix) {
                    visit(key, value)
                } else {
                    Step::Continue
                }
            });
            Ok(())
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::CrashDisk;

    const BULK: Space = Space(0);
    const FEW: Space = Space(1);

    fn open(disk: &CrashDisk) -> LogTable {
        LogTable::new(Arc::new(disk.files()), "t", BULK)
    }

    fn batch(number: u8) -> Batch {
        let mut batch = Batch::default();
        batch.put(BULK, [number], vec![number; 700]);
        batch.put(FEW, *b"last", [number]);
        batch
    }

    fn found(table: &LogTable) -> Vec<u8> {
        let mut numbers = Vec::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            assert_eq!(value, vec![key[0]; 700]);
            numbers.push(key[0]);
            Step::Continue
        };
        table.scan(BULK, b"", visit).unwrap();
        numbers
    }

    /// Batches 0 to 9, of which 3 and 6 are durable at once and 8 is made so.
    fn fill(table: &LogTable) -> Result<(), StoreError> {
        for number in 0..10 {
            table.write(batch(number), number % 3 == 0 && number > 0 && number < 9)?;
            if number == 8 {
                table.sync()?;
            }
        }
        Ok(())
    }

    #[test]
    fn what_survives_a_power_loss_is_a_beginning() {
        for stop in 0..40 {
            for seed in 0..30 {
                let disk = CrashDisk::new(seed, Some(stop));
                let _ = fill(&open(&disk));
                let table = open(&disk.power_loss(None));
                let numbers = found(&table);
                assert_eq!(numbers, (0..numbers.len() as u8).collect::<Vec<_>>(), "stop {stop}");
                assert_eq!(
                    table.get(FEW, b"last").unwrap().map(|last| last[0]),
                    numbers.last().copied()
                );
                if !disk.is_off() {
                    assert!(numbers.len() >= 9, "stop {stop}");
                }
                // Opening was allowed to mend the log, and it goes on.
                table.write(batch(20), true).unwrap();
                assert_eq!(table.get(BULK, &[20]).unwrap().unwrap(), [20; 700]);
            }
        }
    }

    #[test]
    fn a_flipped_bit_costs_one_batch() {
        let disk = CrashDisk::new(1, None);
        fill(&open(&disk)).unwrap();
        let len = disk.files().len("t-1").unwrap().unwrap();
        for byte in 0..len as usize {
            if byte % 7 != 0 && byte % 700 > 40 {
                continue;
            }
            let damaged = disk.process_killed(None);
            damaged.flip_bit("t-1", byte).unwrap();
            let table = open(&damaged);
            assert!(found(&table).len() >= 9, "byte {byte}");
            assert!(table.get(FEW, b"last").unwrap().unwrap()[0] >= 8, "byte {byte}");
            let again = open(&damaged);
            assert_eq!(found(&again), found(&table));
        }
    }

    #[test]
    fn a_long_log_is_written_anew() {
        let disk = CrashDisk::new(1, None);
        let table = open(&disk);
        for round in 0..40 {
            let mut batch = Batch::default();
            batch.put(BULK, *b"big", vec![round; 1 << 20]);
            batch.put(BULK, [round], [round]);
            batch.delete(BULK, [round.wrapping_sub(1)]);
            table.write(batch, false).unwrap();
        }
        let names = disk.files().list().unwrap();
        assert_eq!(names, ["t-2"]);
        for table in [table, open(&disk.process_killed(None))] {
            assert_eq!(table.get(BULK, b"big").unwrap().unwrap(), vec![39; 1 << 20]);
            assert_eq!(table.get(BULK, &[39]).unwrap().unwrap(), [39]);
            assert_eq!(table.get(BULK, &[38]).unwrap(), None);
        }
    }
}
