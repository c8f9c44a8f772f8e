//! Who wants a link to whom.

use std::collections::BTreeSet;

use crate::random::Random;

/// For each node those that it dials, whenever it has no link to them.
#[derive(Debug, Clone, Default)]
pub struct Graph(Vec<BTreeSet<usize>>);

impl Graph {
    /// Nobody dials anybody.
    #[must_use]
    pub fn empty(count: usize) -> Self {
        Self(vec![BTreeSet::new(); count])
    }

    /// Each of a pair counts as a neighbour of the other.
    pub fn join(&mut self, one: usize, other: usize) {
        if one != other {
            self.0[one].insert(other);
            self.0[other].insert(one);
        }
    }

    /// Everyone with everyone.
    #[must_use]
    pub fn full(count: usize) -> Self {
        let mut graph = Self::empty(count);
        (0..count).for_each(|one| (0..one).for_each(|other| graph.join(one, other)));
        graph
    }

    /// Each with the next.
    #[must_use]
    pub fn chain(count: usize) -> Self {
        let mut graph = Self::empty(count);
        (1..count).for_each(|node| graph.join(node - 1, node));
        graph
    }

    /// A random graph in which nearly everyone has `degree` neighbours: half of that many random cycles through all,
    /// which also makes it connected.
    #[must_use]
    pub fn regular(random: &mut Random, count: usize, degree: usize) -> Self {
        if count <= degree + 1 {
            return Self::full(count);
        }
        let mut graph = Self::empty(count);
        let mut order: Vec<usize> = (0..count).collect();
        for _ in 0..degree.div_ceil(2) {
            (1..count).rev().for_each(|last| order.swap(last, random.index(last + 1)));
            (0..count).for_each(|place| graph.join(order[place], order[(place + 1) % count]));
        }
        graph
    }

    /// Those that `node` wants links to.
    pub fn neighbours(&self, node: usize) -> impl Iterator<Item = usize> {
        self.0[node].iter().copied()
    }

    /// Every pair once.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let above = |(one, others): (usize, &BTreeSet<usize>)| {
            others.range(one..).map(move |&other| (one, other)).collect::<Vec<_>>()
        };
        self.0.iter().enumerate().flat_map(above)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_graph_has_about_its_degree_everywhere() {
        let graph = Graph::regular(&mut Random::new(1), 1000, 8);
        let degrees: Vec<usize> = (0..1000).map(|node| graph.neighbours(node).count()).collect();
        assert!(degrees.iter().all(|degree| (5..=8).contains(degree)));
        assert!(degrees.iter().sum::<usize>() > 7900);
    }
}
