# What goes, oldest first; without this everything is kept until produces are
# refused for want of space.
retain {
  age  = "168h"
  size = "70GiB"
}
