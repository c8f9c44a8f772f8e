//! The thread over a real state directory.

use meshwork_ipam::{Config, Init};

use super::*;

fn start(directory: &std::path::Path) -> (Allocator, mpsc::UnboundedReceiver<AddressEvent>) {
    let state = NodeState::open(directory, &mut crate::random::fill).expect("a state directory");
    let config = Config {
        identity: state.identity(),
        incarnation: state.next_incarnation().expect("a run"),
        range4: "10.32.0.0/12".parse().expect("a range"),
        range6: "fd4d:6573:6877::/48".parse().expect("a range"),
        init: Init::Join,
    };
    let ipam = Ipam::restore(config, state.load().expect("a snapshot"), Instant::now()).expect("an allocator");
    let (sender, events) = mpsc::unbounded_channel();
    (Allocator::start(ipam, state, sender).expect("a thread"), events)
}

/// The thread ends, and lets go of the directory, once nobody holds its handle.
async fn end(allocator: Allocator, mut events: mpsc::UnboundedReceiver<AddressEvent>) {
    drop(allocator);
    while events.recv().await.is_some() {}
}

#[tokio::test]
async fn the_allocator_remembers_targets_over_restarts_and_forgets_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let (allocator, events) = start(directory.path());
    for target in ["b:6783", "a:6783", "b:6783"] {
        allocator.remember_target(target.to_owned(), true).await.expect("recorded");
    }
    end(allocator, events).await;
    let (allocator, events) = start(directory.path());
    assert_eq!(allocator.targets(), ["a:6783", "b:6783"]);
    allocator.remember_target("a:6783".to_owned(), false).await.expect("recorded");
    end(allocator, events).await;
    assert_eq!(start(directory.path()).0.targets(), ["b:6783"]);
}
