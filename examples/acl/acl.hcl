# On every node beside the rest: who may do what.
acl {
  policy = "/etc/logd/policy.csv"
  # model = "/etc/logd/model.conf" # a casbin model of your own
}
