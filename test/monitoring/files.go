package monitoring

// Files are what is made, by path from the top of the repository.
func Files() (map[string][]byte, error) {
	files := map[string][]byte{}
	var err error
	if files["deploy/prometheus/rules.yaml"], err = RulesYAML(Rules()); err != nil {
		return nil, err
	}
	if files["deploy/grafana/logd.json"], err = Node().JSON(); err != nil {
		return nil, err
	}
	if files["deploy/grafana/logproxy.json"], err = Proxy().JSON(); err != nil {
		return nil, err
	}
	return files, nil
}
