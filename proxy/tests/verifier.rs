//! Every program passes the verifier, within a budget.
//!
//! What the verifier goes through grows with the number of paths, not only with length: a jump
//! here is an early warning of the refusals larger programs meet on other kernels.

use std::collections::BTreeMap;

use fairlead_proxy::{Kernel, KernelOptions, MapSizes};
use support::world::world;

mod support {
    pub(crate) mod world;
}

#[test]
fn programs_load_within_their_instruction_budgets() {
    world("programs_load_within_their_instruction_budgets", |world| {
        let sizes = MapSizes { bytes: 8, ..MapSizes::default() };
        let options = KernelOptions { sizes, ..world.options() };
        let kernel = Kernel::open(&options).unwrap();
        let verified = kernel.verified_instructions().unwrap();
        println!("{verified:#?}");
        let budgets = BTreeMap::from([
            ("connect4", 12_500),
            ("connect6", 25_000),
            ("sendmsg4", 16_500),
            ("sendmsg6", 47_000),
            ("recvmsg4", 100),
            ("recvmsg6", 120),
            ("getpeername4", 60),
            ("getpeername6", 80),
            ("socket_release", 100),
            ("socket_bytes", 2000),
            ("uplink_ingress", 155_000),
            ("pod_ingress", 170_000),
            ("uplink_egress", 42_000),
        ]);
        assert_eq!(verified.keys().collect::<Vec<_>>(), budgets.keys().collect::<Vec<_>>());
        for (name, budget) in budgets {
            let verified = verified[name];
            assert!(verified <= budget, "{name}: {verified} instructions, budget {budget}");
        }
    });
}
