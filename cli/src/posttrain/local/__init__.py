"""The local executor: the operator's own loop over a cluster that lives in this process.

It plays the kubelet (``kubelet``, ``shim``), the Job, StatefulSet and training-operator controllers (``controllers``)
and the API server (``cluster``); ``session`` drives it. It starts the pod templates' commands as processes, so what
runs on a laptop is what runs on a cluster.
"""
