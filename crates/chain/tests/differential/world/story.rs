//! What happens to both engines: a chain grows, blocks are broken alone and together, branches win and lose, blocks come
//! out of order, again, or in mutated copies.

use std::rc::Rc;

use super::dice::Dice;
use super::maker::{Maker, State};
use super::pair::Pair;
use super::regtest::{Made, genesis};
use super::ways::{self, EDGES, Way};

/// A story in progress.
pub struct Story {
    pub pair: Pair,
    maker: Maker,
    /// Every valid state so far, in the order in which they were made.
    states: Vec<Rc<State>>,
    ways: Vec<Way>,
    /// Which way and which edge come next: in turn, so that each comes up often.
    turn: usize,
    edge: usize,
    last: Option<Made>,
}

impl Story {
    /// Begins with `length` valid blocks; the seed makes the keys.
    pub fn new(dice: Dice, seed: u64, length: usize) -> Self {
        let mut story = Self {
            pair: Pair::new(),
            maker: Maker::new(dice, seed),
            states: vec![Rc::new(State {
                place: genesis(),
                parent: None,
                coins: Vec::new(),
                txs: Vec::new(),
                coinbase: None,
            })],
            ways: ways::all(),
            turn: seed as usize * 31,
            edge: seed as usize * 7,
            last: None,
        };
        for _ in 0..length {
            let on = Rc::clone(story.states.last().unwrap());
            story.grow(&on);
        }
        story
    }

    /// Takes its choices from here on elsewhere.
    pub fn choose(&mut self, dice: Dice) {
        self.maker.dice = dice;
    }

    /// Whether a fuzzer's bytes are used up.
    pub fn is_out(&self) -> bool {
        self.maker.dice.is_out()
    }

    /// One valid block on a state.
    fn grow(&mut self, on: &Rc<State>) -> Rc<State> {
        let made = self.maker.block(on);
        assert!(self.pair.offer(&made, "valid"), "a valid block");
        let state = self.maker.after(on, &made);
        self.states.push(Rc::clone(&state));
        self.last = Some(made);
        state
    }

    /// The state of the tip.
    fn best(&self) -> Rc<State> {
        let tip = self.pair.ours.view().tip().hash;
        let found = self.states.iter().rev().find(|state| state.place.hash == tip);
        Rc::clone(found.expect("the tip is a block that is valid"))
    }

    /// Makes one thing happen.
    pub fn step(&mut self) {
        let best = self.best();
        // Mostly on the tip; sometimes a little below it or on another branch.
        let on = match self.maker.dice.roll(4) {
            0 => Rc::clone(&self.states[self.states.len() - 1 - self.maker.dice.roll(self.states.len().min(12))]),
            _ => best.clone(),
        };
        match self.maker.dice.roll(15) {
            0..=3 => drop(self.grow(&on)),
            4..=7 => {
                let way = self.next_way();
                let count = self.maker.dice.roll(4);
                self.broken(&on, &[way], way.name, count);
            }
            8..=9 => {
                let mut some: Vec<Way> = (0..2 + self.maker.dice.roll(3))
                    .map(|_| *self.maker.dice.one(&self.ways))
                    .collect();
                some.push(self.next_way());
                let count = self.maker.dice.roll(4);
                self.broken(&on, &some, "several faults at once", count);
            }
            10 => self.edge(&best),
            11 => self.out_of_order(&on),
            12 => {
                if let Some(made) = &self.last {
                    self.pair.offer(made, "again");
                }
            }
            13 => self.mutated(&on),
            _ => self.reorganise(&best),
        }
    }

    fn next_way(&mut self) -> Way {
        self.turn += 1;
        self.ways[self.turn % self.ways.len()]
    }

    /// A broken block; where nobody has looked at its coins yet, it is built on until somebody does.
    fn broken(&mut self, on: &Rc<State>, ways: &[Way], name: &'static str, count: usize) {
        let (made, done) = ways::make(&mut self.maker, on, ways, count);
        if done.is_empty() {
            return;
        }
        if self.pair.offer(&made, name) {
            let mut line = vec![self.maker.after(on, &made)];
            while line.len() < 17 && !self.pair.ours.view().contains_in_active(&made.place.hash) {
                let next = self.maker.block(&line[line.len() - 1]);
                line.push(self.maker.after(&line[line.len() - 1], &next));
                if !self.pair.offer(&next, name) {
                    line.clear();
                    break;
                }
            }
            // Two faults may cancel each other out, a single one never does.
            let whole = self.pair.ours.view().contains_in_active(&made.place.hash);
            assert!(!whole || done.len() > 1, "{done:?}: the block was connected by both");
            if whole {
                self.states.extend(line);
            }
        }
        self.last = Some(made);
    }

    /// A block that just fits, on the tip.
    fn edge(&mut self, on: &Rc<State>) {
        self.edge += 1;
        let edge = EDGES[self.edge % EDGES.len()];
        let (made, done) = ways::make(&mut self.maker, on, &[edge], 0);
        if done.is_empty() {
            return;
        }
        assert!(self.pair.offer(&made, edge.name), "{} is still valid", edge.name);
        self.states.push(self.maker.after(on, &made));
        self.last = Some(made);
    }

    /// Mutated copies of an honest block, and then that block.
    fn mutated(&mut self, on: &Rc<State>) {
        let (honest, copies) = ways::mutations(&mut self.maker, on);
        let honest = ways::wrap(on, honest);
        if self.maker.dice.roll(2) == 0 {
            self.pair.offer_header(&honest);
        }
        for copy in copies {
            let made = ways::wrap(on, copy);
            assert!(!self.pair.offer(&made, "a mutated copy"));
        }
        assert!(self.pair.offer(&honest, "an honest block after its mutated copies"));
        self.states.push(self.maker.after(on, &honest));
        self.last = Some(honest);
    }

    /// A better branch from up to ten blocks below the tip.
    fn reorganise(&mut self, best: &Rc<State>) {
        let depth = 1 + self.maker.dice.roll(10);
        let mut on = Rc::clone(best);
        let mut back = 0;
        while let (Some(parent), true) = (on.parent.clone(), back < depth) {
            on = parent;
            back += 1;
        }
        for _ in 0..=back {
            on = self.grow(&on);
        }
    }

    /// A few blocks in a row of which all headers go first and the blocks in random order; one may be broken.
    fn out_of_order(&mut self, on: &Rc<State>) {
        let length = 3 + self.maker.dice.roll(4);
        let broken = (self.maker.dice.roll(2) == 0).then(|| self.maker.dice.roll(length));
        let mut row = Vec::new();
        let mut valid = Vec::new();
        let mut state = Rc::clone(on);
        for index in 0..length {
            let made = if broken == Some(index) {
                let way = *self.maker.dice.one(&self.ways);
                ways::make(&mut self.maker, &state, &[way], 2).0
            } else {
                self.maker.block(&state)
            };
            state = self.maker.after(&state, &made);
            row.push(made);
            // A way may have found nothing to break, but then nobody is told of these states.
            if broken.is_none_or(|broken| index < broken) {
                valid.push(Rc::clone(&state));
            }
        }
        for made in &row {
            self.pair.offer_header(made);
        }
        while !row.is_empty() {
            let made = row.swap_remove(self.maker.dice.roll(row.len()));
            self.pair.offer(&made, "one of a row");
        }
        self.states.extend(valid);
        // What was not broken after all is built on again.
        let tip = self.pair.ours.view().tip().hash;
        let mut line = Some(state);
        while let Some(state) = line {
            if state.place.hash == tip && self.states.iter().all(|known| known.place.hash != tip) {
                self.states.push(state);
                break;
            }
            line = state.parent.clone();
            if line.as_ref().is_some_and(|state| state.place.hash == on.place.hash) {
                break;
            }
        }
    }
}
