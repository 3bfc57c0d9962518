"""Every registered router, and every setting of its knobs, through the router suite."""

from __future__ import annotations

import pytest

from workbench.core.method import methods
from workbench.testing.router_saboteurs import WRONG_ROUTERS, TopTwo
from workbench.testing.router_suite import CHECKS, RouterSuite
from workbench.testing.variants import name_of, variants

ALL = [router for card in methods("router") for router in variants(card)]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("router", ALL, ids=name_of)
def test_router(router, check):
    getattr(RouterSuite(router), check)()


def test_the_registry_holds_routers_of_fixed_and_of_varying_width():
    from workbench.core.routing import Own

    widths = [router.bounds(8, Own(2, True)) for router in ALL]
    assert any(low == high for low, high in widths) and any(low < high for low, high in widths)


@pytest.mark.parametrize("wrong", WRONG_ROUTERS, ids=lambda wrong: wrong.__name__)
def test_a_wrong_router_fails_the_check_that_is_there_for_it(wrong):
    with pytest.raises(AssertionError):
        getattr(RouterSuite(wrong()), wrong.caught_by)()


@pytest.mark.parametrize("check", CHECKS)
def test_the_honest_rule_under_the_mistakes_passes(check):
    getattr(RouterSuite(TopTwo()), check)()


def test_every_check_has_its_saboteur():
    assert {wrong.caught_by for wrong in WRONG_ROUTERS} == set(CHECKS)
