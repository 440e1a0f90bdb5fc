"""What other codes compute, written here by hand, is reproduced by the fields of the spec that say so."""

from dataclasses import replace

import pytest

from experiments.peers import PEERS, distances
from parity_tests import tolerances
from parity_tests.strategies import CASES


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_reproduced_by_its_fields_only(name: str) -> None:
    peer = PEERS[name]
    case = CASES["V1" if peer.is_v1 else "four stages"]
    apart, reproduced = distances(peer, replace(case, count=3))
    bound = tolerances.forward("float64", case)
    assert (apart <= bound) == peer.is_v1
    if peer.down_eps is None:
        assert reproduced is None or reproduced <= bound
    else:
        assert bound < reproduced <= min(tolerances.DOWN_EPS, apart)
