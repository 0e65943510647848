import torch

from trainables.host_draws import on_host, seed_from_state


def test_a_generator_of_the_cpu_is_taken_as_it_is() -> None:
    generator = torch.Generator().manual_seed(3)
    assert on_host(generator) is generator


def test_the_seed_hangs_on_the_state_alone_and_changes_with_it() -> None:
    one, two = (torch.Generator().manual_seed(3) for _ in range(2))
    seeds = []
    for _ in range(20):
        seeds.append(seed_from_state(one.get_state()))
        assert seeds[-1] == seed_from_state(two.get_state())
        for generator in (one, two):
            torch.rand(1, generator=generator)
    assert len(set(seeds)) == 20
    assert all(0 <= seed < 2**63 for seed in seeds)
