//! What is measured of a graph.

use std::collections::{BTreeSet, VecDeque};

/// Neighbours of each node.
pub(crate) type Graph = Vec<BTreeSet<usize>>;

/// How many links lie between a node and each other one; nothing where no way leads.
pub(crate) fn distances(graph: &Graph, from: usize) -> Vec<Option<usize>> {
    let mut found = vec![None; graph.len()];
    found[from] = Some(0);
    let mut open = VecDeque::from([from]);
    while let Some(node) = open.pop_front() {
        for &next in &graph[node] {
            if found[next].is_none() {
                found[next] = found[node].map(|steps| steps + 1);
                open.push_back(next);
            }
        }
    }
    found
}

/// The component of each node, named by its least member.
pub(crate) fn components(graph: &Graph) -> Vec<usize> {
    let mut of = vec![usize::MAX; graph.len()];
    for from in 0..graph.len() {
        if of[from] == usize::MAX {
            for (node, steps) in distances(graph, from).into_iter().enumerate() {
                if steps.is_some() {
                    of[node] = from;
                }
            }
        }
    }
    of
}

/// The longest of the shortest ways from a few nodes; nothing where the graph has several parts.
pub(crate) fn diameter(graph: &Graph, living: &[usize]) -> Option<usize> {
    let from = living.iter().step_by(living.len().div_ceil(20));
    from.map(|&node| {
        living.iter().map(|&to| distances(graph, node)[to]).max_by_key(|steps| steps.unwrap_or(usize::MAX))?
    })
    .max_by_key(|steps| steps.unwrap_or(usize::MAX))?
}

/// Share of the living in the largest part, once `gone` are taken away.
pub(crate) fn largest_part(graph: &Graph, living: &[usize], gone: &BTreeSet<usize>) -> f64 {
    let rest: Graph = graph
        .iter()
        .enumerate()
        .map(|(node, links)| if gone.contains(&node) { BTreeSet::new() } else { links - gone })
        .collect();
    let left: Vec<usize> = living.iter().copied().filter(|node| !gone.contains(node)).collect();
    let of = components(&rest);
    let mut sizes = vec![0_usize; graph.len()];
    left.iter().for_each(|&node| sizes[of[node]] += 1);
    *sizes.iter().max().expect("nodes") as f64 / left.len() as f64
}
