"""Deploy of the tests: the resolver of a host, from ``host.data.resolver``."""

from pyinfra import host

from stackmend import resolver
from stackmend.resolver.spec import ResolverPolicy

policy = ResolverPolicy.model_validate(host.data.resolver)

resolver.prefetch(policy)
resolver.apply_policy(policy)
