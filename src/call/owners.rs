//! Whose leg owns a recording: the triggers of spec/recording.md §3 as one pure function.

use super::directory::Class;
use super::options::{DefaultOwner, RouteRecord};
use crate::record::mark::{Role, Side};

/// What of a leg chooses or forbids.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chooser {
    pub class: Class,
    /// The leg's role in this call.
    pub role: Role,
    /// `record` of its DN or trunk.
    pub record: Option<bool>,
}

/// One session to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub side: Side,
    /// `dn`, `trunk`, `route`, `default`.
    pub trigger: &'static str,
    /// The rule in words.
    pub rule: String,
}

/// Roles of origination and termination side (spec/sip.md §1): DN agent, trunk customer; of one class: the caller is
/// the customer. Class other takes the role that the other side leaves.
pub(super) fn roles(origination: Class, termination: Class) -> (Role, Role) {
    match (origination, termination) {
        (Class::Dn, Class::Trunk | Class::Other) | (Class::Other, Class::Trunk) => (Role::Agent, Role::Customer),
        _ => (Role::Customer, Role::Agent),
    }
}

/// The owners of a call, at most one session per leg; the trigger named is the most particular one.
pub(super) fn owners(
    origination: Chooser,
    termination: Chooser,
    default: DefaultOwner,
    route: Option<RouteRecord>,
) -> Vec<Owner> {
    let legs = [(Side::Origination, origination), (Side::Termination, termination)];
    legs.into_iter().filter_map(|(side, leg)| owner(side, leg, default, route)).collect()
}

/// The owner that a leg's own option names, whatever the call: DN or trunk option `record = true`.
pub(super) fn own(side: Side, class: Class, record: Option<bool>) -> Option<Owner> {
    if record != Some(true) {
        return None;
    }
    let side_name = if side == Side::Origination { "origination" } else { "termination" };
    let (trigger, option) = if class == Class::Dn { ("dn", "DN") } else { ("trunk", "trunk") };
    Some(Owner { side, trigger, rule: format!("{option} option `record = true` of the {side_name} leg") })
}

fn owner(side: Side, leg: Chooser, default: DefaultOwner, route: Option<RouteRecord>) -> Option<Owner> {
    // "Source" is the customer's leg; of one class the fall-back to origination and termination is the same by `roles`.
    let is_source = leg.role == Role::Customer;
    let named = |role: &str| format!("route option `record = \"{role}\"`");
    let name = |side: Side| if side == Side::Origination { "origination" } else { "termination" };
    match route {
        Some(RouteRecord::DisableSource) if is_source => return None,
        Some(RouteRecord::DisableDestination) if !is_source => return None,
        Some(RouteRecord::Source) if is_source => {
            return Some(Owner { side, trigger: "route", rule: named("source") });
        }
        Some(RouteRecord::Destination) if !is_source => {
            return Some(Owner { side, trigger: "route", rule: named("destination") });
        }
        _ => {}
    }
    if let Some(own) = own(side, leg.class, leg.record) {
        return Some(own);
    }
    let chosen = match default {
        DefaultOwner::None => false,
        DefaultOwner::Origination => side == Side::Origination,
        DefaultOwner::Termination => side == Side::Termination,
        DefaultOwner::Both => true,
    };
    let all = if default == DefaultOwner::Both { "both" } else { name(side) };
    (chosen && leg.record != Some(false)).then(|| Owner {
        side,
        trigger: "default",
        rule: format!("`recording.default = \"{all}\"`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Owners as `side:trigger`, for a call from class to class with their `record` options.
    fn chosen(
        legs: [(Class, Option<bool>); 2],
        default: DefaultOwner,
        route: Option<RouteRecord>,
    ) -> Vec<(Side, &'static str)> {
        let (first, second) = roles(legs[0].0, legs[1].0);
        let origination = Chooser { class: legs[0].0, role: first, record: legs[0].1 };
        let termination = Chooser { class: legs[1].0, role: second, record: legs[1].1 };
        owners(origination, termination, default, route).into_iter().map(|o| (o.side, o.trigger)).collect()
    }

    #[test]
    fn every_trigger_chooses_the_leg_that_the_table_says() {
        use Class::{Dn, Other, Trunk};
        use DefaultOwner as D;
        use RouteRecord as R;
        use Side::{Origination as O, Termination as T};
        let inbound = [(Trunk, None), (Dn, None)];
        let outbound = [(Dn, None), (Trunk, None)];
        for (legs, default, route, expected) in [
            (inbound, D::None, None, vec![]),
            (inbound, D::Origination, None, vec![(O, "default")]),
            (inbound, D::Termination, None, vec![(T, "default")]),
            (inbound, D::Both, None, vec![(O, "default"), (T, "default")]),
            ([(Trunk, None), (Dn, Some(true))], D::None, None, vec![(T, "dn")]),
            ([(Trunk, Some(true)), (Dn, None)], D::None, None, vec![(O, "trunk")]),
            ([(Trunk, Some(true)), (Dn, Some(true))], D::Both, None, vec![(O, "trunk"), (T, "dn")]),
            ([(Trunk, Some(false)), (Dn, None)], D::Origination, None, vec![]),
            ([(Trunk, Some(false)), (Dn, None)], D::Both, None, vec![(T, "default")]),
            ([(Trunk, Some(false)), (Dn, None)], D::None, Some(R::Source), vec![(O, "route")]),
            (inbound, D::None, Some(R::Source), vec![(O, "route")]),
            (inbound, D::None, Some(R::Destination), vec![(T, "route")]),
            (outbound, D::None, Some(R::Source), vec![(T, "route")]),
            (outbound, D::None, Some(R::Destination), vec![(O, "route")]),
            (inbound, D::Origination, Some(R::Destination), vec![(O, "default"), (T, "route")]),
            (inbound, D::Both, Some(R::DisableSource), vec![(T, "default")]),
            (outbound, D::Both, Some(R::DisableSource), vec![(O, "default")]),
            (inbound, D::Both, Some(R::DisableDestination), vec![(O, "default")]),
            ([(Trunk, Some(true)), (Dn, None)], D::None, Some(R::DisableSource), vec![]),
            ([(Dn, None), (Dn, None)], D::None, Some(R::Source), vec![(O, "route")]),
            ([(Dn, None), (Dn, None)], D::None, Some(R::Destination), vec![(T, "route")]),
            ([(Other, None), (Other, None)], D::None, Some(R::Destination), vec![(T, "route")]),
            ([(Other, None), (Dn, None)], D::None, Some(R::Destination), vec![(T, "route")]),
            ([(Trunk, None), (Other, None)], D::None, Some(R::Source), vec![(O, "route")]),
        ] {
            assert_eq!(chosen(legs, default, route), expected, "{legs:?} {default:?} {route:?}");
        }
    }

    #[test]
    fn the_two_sides_never_have_one_role() {
        for a in [Class::Dn, Class::Trunk, Class::Other] {
            for b in [Class::Dn, Class::Trunk, Class::Other] {
                let (first, second) = roles(a, b);
                assert_ne!(first, second);
            }
        }
    }
}
