//! What no server block can see alone.

use std::net::IpAddr;

use super::{
    CorefileError, ServerBlock, ZoneAt,
    blocks::{Block, unreachable_error},
    tokens::Token,
};

/// A block as it is written, and what it means.
type Place<'b> = (&'b Block, &'b ServerBlock);

/// What is wrong is said of the later block, with the place of the earlier one.
pub(super) fn check(places: &[Place<'_>]) -> Result<(), CorefileError> {
    for (at, later) in places.iter().enumerate() {
        if let Some(ZoneAt { zone, port }) = twice(later.1) {
            let reason =
                format!("{zone}:{port} is served twice by this server block: name it once");
            let token = later.0.keys.first();
            return Err(
                token.map_or_else(|| unreachable_error(&reason), |token| token.error(&*reason))
            );
        }
        let earlier = places.get(..at).unwrap_or_default();
        let wrong = earlier.iter().find_map(|one| Some((one, wrong(*one, *later)?)));
        if let Some((earlier, Wrong { plugin, reason })) = wrong {
            let first = earlier.0.place(plugin).map(where_is).unwrap_or_default();
            let place = later.0.place(plugin);
            return Err(place.map_or_else(
                || unreachable_error(&reason),
                |token| token.error(format!("{reason} (the other is {first})")),
            ));
        }
    }
    Ok(())
}

/// What two blocks cannot be at the same time.
struct Wrong {
    /// Whose line it is; none: the blocks' own first ones.
    plugin: Option<&'static str>,
    reason: String,
}

impl Block {
    fn place(&self, plugin: Option<&str>) -> Option<&Token> {
        let Some(plugin) = plugin else { return self.keys.first() };
        self.body.iter().map(|line| &line.name).find(|name| name.text == plugin)
    }
}

fn where_is(token: &Token) -> String {
    format!("{}:{}", token.file, token.line)
}

fn wrong((_, earlier): Place<'_>, (_, later): Place<'_>) -> Option<Wrong> {
    let of_block = |reason| Wrong { plugin: None, reason };
    let of_kubernetes = |reason: &str| Wrong { plugin: Some("kubernetes"), reason: reason.into() };
    if let Some(ZoneAt { zone, port }) = served_twice(earlier, later) {
        return Some(of_block(format!(
            "{zone}:{port} is served twice: join the two server blocks, or write the one with a `view` \
             first"
        )));
    }
    if let Some(address) = bound_apart(earlier, later) {
        return Some(of_block(format!(
            "bind: {address} is listened on by server blocks of one port whose addresses are not the \
             same: give them the same ones in the same order"
        )));
    }
    let (one, two) = earlier.kubernetes.as_ref().zip(later.kubernetes.as_ref())?;
    if matches!((&one.domain, &two.domain), (Some(one), Some(two)) if one != two) {
        return Some(of_kubernetes(
            "two cluster domains: give all `kubernetes` lines the same one",
        ));
    }
    (!one.same_but_zones(two)).then(|| {
        of_kubernetes(
            "two `kubernetes` plugins differ in more than their zones: make their options the same",
        )
    })
}

/// A zone that a block names more than once, in whatever words.
fn twice(block: &ServerBlock) -> Option<&ZoneAt> {
    let mut zones = block.zones.iter().enumerate();
    let is_second =
        |(at, zone): &(usize, &ZoneAt)| block.zones.iter().take(*at).any(|one| one == *zone);
    zones.find(is_second).map(|(_, zone)| zone)
}

/// What a view leaves over may be another block's.
fn served_twice<'b>(earlier: &ServerBlock, later: &'b ServerBlock) -> Option<&'b ZoneAt> {
    let may_be = earlier.view.is_some() || earlier.bind != later.bind;
    later.zones.iter().find(|zone| !may_be && earlier.zones.contains(zone))
}

/// An address that blocks of one port share without sharing all: each would have sockets there, and the
/// kernel would choose between them for every client.
fn bound_apart(earlier: &ServerBlock, later: &ServerBlock) -> Option<IpAddr> {
    let is_beside = |zone: &ZoneAt| earlier.zones.iter().any(|own| own.port == zone.port);
    if earlier.bind == later.bind || !later.zones.iter().any(is_beside) {
        return None;
    }
    earlier.bind.iter().find(|own| later.bind.contains(own)).copied()
}
