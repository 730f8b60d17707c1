"""Environments of the verifiers package, v0.4: its tasksets as rows, its programs, tools, users and rewards.

An environment of verifiers is no object that is stepped: it runs, and asks a model as any program does, by HTTP. So it
is given the address of an `Endpoint` in this process, and each of its requests is a turn of the policy.

    reset   begin `Env.run_episode`, wait for its first request           the request's messages
    step    answer the request, wait for the next one, or for the end     what stands behind the answer, and the reward
"""

SCHEME = "verifiers:"
